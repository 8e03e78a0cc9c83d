"""The loss of a PointRend for objects: their masks at single points of their boxes.

Letters: N batch, B objects' boxes of a batch, K classes, P points of a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from segatlas.losses.loss import Canvas, Loss, precise
from segatlas.structures import DetectedMasks, InstancesTarget

if TYPE_CHECKING:
    from torch import Generator, Tensor


class MaskPoints(Loss):
    """Mean binary cross-entropy of objects' masks at points of their boxes (Kirillov et al. 2020).

    Of the logits of a point only that of the object's class counts. It should be 1 inside the object, 0 outside and
    between them at its edge, where the true mask is interpolated. Without objects it is 0 with zero gradient.

    In place of logits and labels it takes the network's whole output and the truths; where points lie, and what they
    should be, lies in `raw`.
    """

    output: ClassVar = "DetectedMasks"
    takes: ClassVar = "what a PointRend for objects draws while training (DetectedMasks)"
    weighted: ClassVar = False

    name: Literal["mask_points"] = "mask_points"

    def value(
        self,
        logits: DetectedMasks,
        labels: Sequence[InstancesTarget],
        canvas: Canvas,
        align_corners: bool,
        class_weights: Tensor | None,
    ) -> Tensor:
        """See `Loss`."""
        from torch.nn import functional as F

        points, classes = precise(logits.raw["point_logits"]), logits.raw["box_classes"]
        kinds = classes[classes < points.shape[1]]
        shown = points.take_along_dim(kinds[:, None, None], 1)[:, 0]  # (B, P)
        wanted = logits.raw["point_targets"].to(shown)
        return F.binary_cross_entropy_with_logits(shown, wanted, reduction="sum") / max(shown.numel(), 1)

    def given(self, output: DetectedMasks) -> DetectedMasks:
        """Return the whole output."""
        return output

    def fits(self, logits: Any) -> bool:
        """Tell whether this is such an output."""
        return isinstance(logits, DetectedMasks) and "point_logits" in logits.raw

    def example(self, labels: Tensor, classes: int, draw: Generator) -> DetectedMasks:
        """See `Loss`; 8 points in the boxes of two objects."""
        import torch

        raw = {
            "point_logits": torch.randn(2, classes, 8, generator=draw, dtype=torch.float64),
            "point_targets": torch.rand(2, 8, generator=draw, dtype=torch.float64),
            "box_classes": torch.tensor([0, classes, classes - 1]),
        }
        size = (labels.shape[-2], labels.shape[-1])
        return DetectedMasks(boxes=(), scores=(), labels=(), mask_logits=(), canvas=size, raw=raw)


LOSS = MaskPoints
