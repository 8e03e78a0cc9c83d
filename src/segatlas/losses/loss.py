"""What all losses share: keys, signature, what is checked before one is computed, the mean over classes.

Importing a loss loads no torch, because every recipe is checked against them: what computes is imported inside the
functions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import ConfigDict

from segatlas.config.losses import LossConfig
from segatlas.errors import UsageError

if TYPE_CHECKING:
    from torch import Generator, Tensor

Canvas = tuple[int, int] | None


def _name_is_required(schema: dict[str, Any]) -> None:
    """Say in the JSON Schema what holds for a recipe: only its name tells which loss a line is."""
    schema["properties"]["name"].pop("default", None)
    schema["required"] = ["name"]


class Loss(LossConfig):
    """A line of `losses:` in a recipe, and the loss itself: a scalar from a network's output and the truth.

    `loss(logits, labels, canvas=None, align_corners=False, class_weights=None)`:

    - logits: what the loss `takes`, by default (N, K, h, w) float at the network's own stride; half precision is
      computed in float32.
    - labels: (N, H, W) uint8 or int64, 0..K-1 or 255 where a pixel has no label; such pixels count nowhere.
    - canvas: (H', W') pixels that the logits cover, H <= H' and W <= W'; the labels are its top left part. By default
      (H, W).
    - align_corners: how the logits are upsampled to the canvas, as in `torch.nn.functional.interpolate`.
    - class_weights: (K,) or None. Those of the recipe are for whoever adds terms up: they may be "auto".

    The result is float32 (float64 for float64 logits); without any labelled pixel it is 0 with zero gradient.
    UsageError if the loss does not take what is given, shapes do not fit together, a label is out of range, or there is
    not one class weight per class.

    A loss says of itself: `output`, the output type of `segatlas.structures` that it is for; `takes`, in words;
    `weighted`, whether class weights have a meaning; `heeds`, the field of `SemanticTarget` besides labels that it
    learns from; `tiny`, keys for images of a few pixels, used in tests;
    `reads_around`, whether it takes logits together with what stands around them (`WithSurroundings`).
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra=_name_is_required)

    output: ClassVar[str] = "SemanticLogits"
    takes: ClassVar[str] = "a map of logits (N, K, h, w)"
    reads_around: ClassVar[bool] = False
    weighted: ClassVar[bool] = True
    heeds: ClassVar[str] = ""
    tiny: ClassVar[Mapping[str, Any]] = {}

    name: str = ""

    def __call__(
        self,
        logits: Any,
        labels: Any,
        canvas: Canvas = None,
        align_corners: bool = False,
        class_weights: Tensor | None = None,
    ) -> Tensor:
        """Return the loss, a scalar."""
        return self.total(self.parts(logits, labels, canvas, align_corners, class_weights))

    def parts(
        self,
        logits: Any,
        labels: Any,
        canvas: Canvas = None,
        align_corners: bool = False,
        class_weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return what is logged of the loss, scalars by name: itself, if it has no parts."""
        self.check(logits, class_weights)
        return {self.name: self.value(logits, labels, canvas, align_corners, class_weights)}

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the loss that these parts make."""
        return parts[self.name]

    @abstractmethod
    def value(
        self, logits: Any, labels: Any, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """Compute the loss of what has been checked."""

    def for_classes(self, names: Sequence[str], background: int | None) -> Self:
        """Return the loss for a set of classes: what it finds by their names is settled.

        Args:
            names: of the classes.
            background: which of them is everything else, None = none.

        Raises:
            UsageError: it needs a class that there is not.
        """
        return self

    def given(self, output: Any) -> Any:
        """Return the part of a network's output that the term is on.

        Raises:
            UsageError: it is an auxiliary head that the network does not have.
        """
        if self.on == "logits":
            return output.logits
        name = self.on.removeprefix("aux.")
        if name not in output.aux:
            has = ", ".join(f"aux.{known}" for known in output.aux)
            advice = f"it has: {has}" if has else "it has none in this mode (set model.aux=true, and train)"
            raise UsageError(f"a loss is on {self.on!r}, but the network has no such auxiliary head; {advice}")
        return output.aux[name]

    def fits(self, logits: Any) -> bool:
        """Tell whether this is what the loss `takes`."""
        return getattr(logits, "ndim", 0) == 4

    def num_classes(self, logits: Any) -> int:
        """Return K of what the loss takes."""
        return int(logits.shape[1])

    def example(self, labels: Tensor, classes: int, draw: Generator) -> Any:
        """Return random input of the kind that the loss takes, in float64, for these labels (N, H, W): for trials."""
        import torch

        return torch.randn(len(labels), classes, *labels.shape[-2:], generator=draw, dtype=torch.float64)

    def check(self, logits: Any, class_weights: Tensor | None) -> None:
        """Raise UsageError where the loss does not take this, or not with these class weights."""
        if not self.fits(logits):
            found = f"a tensor {tuple(logits.shape)}" if hasattr(logits, "shape") else type(logits).__name__
            raise UsageError(f"loss {self.name} is on {self.on!r}, which gives {found}; it takes {self.takes}")
        if class_weights is None:
            return
        if not self.weighted:
            raise UsageError(f"loss {self.name}: class_weights has no meaning; it takes none")
        if class_weights.shape != (self.num_classes(logits),):
            raise UsageError(
                f"class_weights has {class_weights.numel()} numbers, "
                f"but the network has {self.num_classes(logits)} classes"
            )


def precise(logits: Tensor) -> Tensor:
    """Return half precision as float32; others as they are."""
    return logits.float() if logits.element_size() < 4 else logits


def quotient(above: Tensor, below: Tensor) -> Tensor:
    """Return above / below, and above itself where below is 0: nothing was there to count."""
    return above / below.where(below > 0, below.new_ones(()))


def mean_over_classes(values: Tensor, present: Tensor, weights: Tensor | None) -> Tensor:
    """Return the (weighted) mean of values (K,) over the classes of the mask present (K,); 0 if there is none."""
    weight = present.to(values.dtype)
    if weights is not None:
        weight = weight * weights.to(values)
    return quotient((values * weight).sum(), weight.sum())
