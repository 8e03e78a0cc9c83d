"""Loss terms of a recipe: a line of `losses:` is one of these. `segatlas.losses` holds the class of the same name."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from segatlas.config.section import Section
from segatlas.renamed import old_names


class LossConfig(Section):
    """What all terms share. output: name of the output type of `segatlas.structures` that the loss is for."""

    output: ClassVar[str] = "SemanticLogits"
    name: str
    weight: float = Field(1.0, gt=0, le=1e6, description="factor of this term in the sum")
    on: str = Field("logits", pattern=r"^(logits|aux\.\w+)$", description="'logits' or 'aux.NAME'")
    class_weights: tuple[float, ...] | Literal["auto"] | None = Field(
        None, description="one per class, or 'auto': from the training masks (see `segatlas data stats`)"
    )


class CrossEntropyConfig(LossConfig):
    """Cross-entropy over labelled pixels."""

    name: Literal["cross_entropy"]
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="fraction of the target spread over all classes")


class OhemConfig(LossConfig):
    """Cross-entropy over hard pixels only: those whose true class scores below `threshold`, but at least `min_kept`."""

    name: Literal["ohem"]
    threshold: float = Field(0.7, gt=0, le=1, description="pixels whose true class scores below it are hard")
    min_kept: int = Field(100_000, ge=1, description="pixels per batch kept at least")


class DiceConfig(LossConfig):
    """One minus the Dice coefficient, mean over classes."""

    name: Literal["dice"]
    smooth: float = Field(1.0, ge=0, le=1e6, description="added above and below the fraction")


class CrossEntropyDiceConfig(LossConfig):
    """Cross-entropy plus Dice."""

    name: Literal["cross_entropy_dice"]
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="fraction of the target spread over all classes")
    dice_fraction: float = Field(0.5, ge=0, le=1, description="fraction of Dice in the sum")
    smooth: float = Field(1.0, ge=0, le=1e6, description="added above and below the fraction")


class FocalConfig(LossConfig):
    """Cross-entropy with well classified pixels weighted down by (1 - p)^gamma."""

    name: Literal["focal"]
    gamma: float = Field(2.0, ge=0, le=100, description="0 is plain cross-entropy")


class TverskyConfig(LossConfig):
    """Dice with separate weights of false positives (alpha) and false negatives (beta)."""

    name: Literal["tversky"]
    alpha: float = Field(0.3, ge=0, le=1e3, description="weight of false positives")
    beta: float = Field(0.7, ge=0, le=1e3, description="weight of false negatives")
    gamma: float = Field(1.0, gt=0, le=100, description="focal exponent on (1 - index)")
    smooth: float = Field(1.0, ge=0, le=1e6, description="added above and below the fraction")


class LovaszConfig(LossConfig):
    """Lovász-Softmax: a smooth surrogate of the mean IoU."""

    name: Literal["lovasz"]
    per_image: bool = Field(False, description="mean over images, in place of one set of pixels a batch")


class BoundaryConfig(LossConfig):
    """Cross-entropy with pixels near a change of label weighted up."""

    name: Literal["boundary"]
    width: int = Field(3, ge=1, le=1000, description="pixels on each side of a change")
    factor: float = Field(5.0, ge=1, le=1e6, description="weight of those pixels; the others have 1")


class DetailConfig(LossConfig):
    """Borders between labels, for the detail head of STDC: binary cross-entropy plus Dice."""

    name: Literal["detail"]
    on: str = Field("aux.detail", pattern=r"^aux\.\w+$", description="the head that draws borders")


class ClassPresenceConfig(LossConfig):
    """Which classes an image shows, for the presence head of context encoding: binary cross-entropy."""

    name: Literal["class_presence"]
    on: str = Field("aux.presence", pattern=r"^aux\.\w+$", description="the head that tells which classes occur")


class PointCrossEntropyConfig(LossConfig):
    """Cross-entropy at the points that a PointRend chose while training; on: aux.points."""

    name: Literal["point_cross_entropy"]


class CentersOffsetsConfig(LossConfig):
    """Objects by their centres: focal loss on centres, L1 on offsets, binary cross-entropy on the foreground."""

    output: ClassVar[str] = "CentersAndOffsets"
    name: Literal["centers_offsets"]
    center_weight: float = Field(1.0, ge=0, le=1e6, description="factor of the focal loss on centres")
    offset_weight: float = Field(0.1, ge=0, le=1e6, description="factor of L1 on offsets, in cells of the output")
    foreground_weight: float = Field(10.0, ge=0, le=1e6, description="factor of binary cross-entropy on the foreground")


AnyLossConfig = Annotated[
    CrossEntropyConfig
    | OhemConfig
    | DiceConfig
    | CrossEntropyDiceConfig
    | FocalConfig
    | TverskyConfig
    | LovaszConfig
    | BoundaryConfig
    | DetailConfig
    | ClassPresenceConfig
    | PointCrossEntropyConfig
    | CentersOffsetsConfig,
    Field(discriminator="name"),
]


def losses_for(output: str) -> dict[str, type[LossConfig]]:
    """Return name -> term of the losses for an output type of `segatlas.structures`; the first is the default."""
    members: tuple[type[LossConfig], ...] = get_args(get_args(AnyLossConfig)[0])
    return {get_args(one.model_fields["name"].annotation)[0]: one for one in members if one.output == output}


__getattr__ = old_names("segatlas.config.losses")
