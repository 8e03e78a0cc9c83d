"""The losses of networks whose cells find objects and draw their masks: classes, boxes, centerness, masks.

Letters: N batch, K classes, T cells of an image, B cells of a batch that stand for objects, S masks drawn among these,
h w the size of a mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas, Loss, precise
from segatlas.structures import DetectedMasks, InstancesTarget

if TYPE_CHECKING:
    from torch import Generator, Tensor

LEAST = 5e-6
"""Added to both squares below the Dice coefficient of a mask."""


class DynamicMasks(Loss):
    """Cells and their masks (Tian et al. 2019, Tian et al. 2020): the weighted sum of four parts.

    Focal loss of every class at every judged cell, divided by the cells that stand for an object, B; one minus the
    generalised IoU of the boxes of these, a mean weighted by how central a cell lies; binary cross-entropy of their
    centerness; one minus the Dice coefficient, with squares below, of each drawn mask, a mean. Where no cell stands for
    an object, all but the first are 0 with zero gradient.

    In place of logits and labels it takes the network's whole output and the truths, which the network has used
    already: which cells stand for what lies in `raw`.
    """

    output: ClassVar = "DetectedMasks"
    takes: ClassVar = "what a network of cells with masks gives while training (DetectedMasks)"
    weighted: ClassVar = False

    name: Literal["dynamic_masks"] = "dynamic_masks"
    class_weight: float = Field(1.0, ge=0, le=1e6, description="factor of the classes of cells")
    box_weight: float = Field(1.0, ge=0, le=1e6, description="factor of the boxes")
    centerness_weight: float = Field(1.0, ge=0, le=1e6, description="factor of the centerness")
    mask_weight: float = Field(1.0, ge=0, le=1e6, description="factor of the masks")
    alpha: float = Field(0.25, ge=0, le=1, description="weight of a class where it is true; 1 - alpha where it is not")
    gamma: float = Field(2.0, ge=0, le=100, description="how much what is known well is weighted down; 0 = not at all")

    def parts(
        self,
        logits: DetectedMasks,
        labels: Sequence[InstancesTarget],
        canvas: Canvas = None,
        align_corners: bool = False,
        class_weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the four parts, before their factors."""
        self.check(logits, class_weights)
        raw = logits.raw
        return {"class": self.of_classes(raw), **of_boxes(raw), "mask": of_masks(raw)}

    def value(
        self,
        logits: DetectedMasks,
        labels: Sequence[InstancesTarget],
        canvas: Canvas,
        align_corners: bool,
        class_weights: Tensor | None,
    ) -> Tensor:
        """See `Loss`."""
        return self.total(self.parts(logits, labels, canvas, align_corners, class_weights))

    def total(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of the four parts."""
        return (
            self.class_weight * parts["class"]
            + self.box_weight * parts["box"]
            + self.centerness_weight * parts["centerness"]
            + self.mask_weight * parts["mask"]
        )

    def of_classes(self, raw: Mapping[str, Any]) -> Tensor:
        """Return the focal loss of maps (N, K, h_i, w_i) of logits against `cell_classes` (N, T)."""
        from torch.nn import functional as F

        classes = raw["cell_classes"]
        logits = _by_cell(raw["class_logits"])[classes >= 0]
        kinds = classes[classes >= 0]
        wanted = F.one_hot(kinds, logits.shape[1] + 1)[:, :-1].to(logits)
        wrong = (logits.sigmoid() - wanted).abs()
        weight = self.alpha * wanted + (1 - self.alpha) * (1 - wanted)
        each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        objects = (kinds < logits.shape[1]).sum().clamp(min=1)
        return (weight * wrong.clamp(min=1e-12) ** self.gamma * each).sum() / objects

    def given(self, output: DetectedMasks) -> DetectedMasks:
        """Return the whole output."""
        return output

    def fits(self, logits: Any) -> bool:
        """Tell whether this is such an output."""
        return isinstance(logits, DetectedMasks) and "cell_classes" in logits.raw

    def example(self, labels: Tensor, classes: int, draw: Generator) -> DetectedMasks:
        """See `Loss`."""
        import torch

        count, objects, side = len(labels), 3, 4
        shapes = ((2, 3), (1, 2))
        cells = sum(height * width for height, width in shapes)

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=draw, dtype=torch.float64)

        kinds = torch.full((count, cells), classes)
        kinds[0, :objects] = torch.arange(objects) % classes
        kinds[-1, -1] = -1
        raw = {
            "class_logits": tuple(normal(count, classes, *shape) for shape in shapes),
            "distances": tuple(normal(count, 4, *shape).abs() * 8 for shape in shapes),
            "centerness": tuple(normal(count, 1, *shape) for shape in shapes),
            "cell_classes": kinds,
            "distance_targets": normal(objects, 4).abs() * 8 + 0.1,
            "mask_logits": normal(objects, side, side),
            "mask_targets": torch.arange(objects * side**2).view(objects, side, side).to(torch.int8) % 3 - 1,
        }
        size = (labels.shape[-2], labels.shape[-1])
        return DetectedMasks(boxes=(), scores=(), labels=(), mask_logits=(), canvas=size, raw=raw)


def of_boxes(raw: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the losses "box" and "centerness" of the cells that stand for objects.

    raw: `distances` (N, 4, h_i, w_i) and `centerness` (N, 1, h_i, w_i) by level, `cell_classes` (N, T),
    `distance_targets` (B, 4).
    """
    from torch.nn import functional as F

    from segatlas.ops.boxes import generalized_ious

    classes, classes_in_all = raw["cell_classes"], raw["class_logits"][0].shape[1]
    is_object = (classes >= 0) & (classes < classes_in_all)
    distances = _by_cell(raw["distances"])[is_object]
    centerness = _by_cell(raw["centerness"])[is_object][:, 0]
    targets = raw["distance_targets"].to(distances)
    central = central_by(targets)
    apart = 1 - generalized_ious(_around_zero(distances), _around_zero(targets))
    of_centerness = F.binary_cross_entropy_with_logits(centerness, central.to(centerness), reduction="sum")
    return {
        "box": (apart * central).sum() / central.sum().clamp(min=1e-6),
        "centerness": of_centerness / max(len(targets), 1),
    }


def of_masks(raw: Mapping[str, Any]) -> Tensor:
    """Return one minus the mean Dice coefficient of `mask_logits` (S, h, w) against `mask_targets`: 1, 0, -1 = none."""
    probabilities = precise(raw["mask_logits"]).sigmoid().flatten(1)
    targets = raw["mask_targets"].flatten(1)
    probabilities = probabilities * (targets >= 0)
    wanted = (targets > 0).to(probabilities)
    common = (probabilities * wanted).sum(dim=1)
    squares = probabilities.square().sum(dim=1) + wanted.sum(dim=1) + 2 * LEAST
    return (1 - 2 * common / squares).sum() / max(len(targets), 1)


def central_by(distances: Tensor) -> Tensor:
    """Return how central (B,) points lie whose distances to the sides of their boxes are (B, 4): 0..1, 1 = middle."""
    across, down = distances[:, 0::2], distances[:, 1::2]
    fraction = across.amin(dim=1) / across.amax(dim=1) * (down.amin(dim=1) / down.amax(dim=1))
    return fraction.sqrt()


def _around_zero(distances: Tensor) -> Tensor:
    """Return the boxes (B, 4) whose sides are so far away from the origin."""
    import torch

    return torch.cat([-distances[:, :2], distances[:, 2:]], dim=1)


def _by_cell(maps: Sequence[Tensor]) -> Tensor:
    """Bring maps (N, C, h_i, w_i) into the order of cells: (N, T, C)."""
    import torch

    return precise(torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1))


LOSS = DynamicMasks
