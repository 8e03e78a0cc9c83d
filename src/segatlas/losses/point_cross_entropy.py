"""Cross-entropy at single points of the canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas, Loss, precise, quotient
from segatlas.structures import IGNORE, PointLogits

if TYPE_CHECKING:
    from torch import Generator, Tensor


class PointCrossEntropy(Loss):
    """Cross-entropy at the points that a PointRend chose while training; on: aux.points.

    The mean over the points that lie on labelled pixels (Kirillov et al. 2020, https://arxiv.org/abs/1912.08193); with
    class weights the sum is divided by the weights of these points, with `count_ignored` also by the number of the
    others. A point has the label of the pixel that it lies in.
    """

    takes: ClassVar = "logits at points (PointLogits), such as those of aux.points"

    name: Literal["point_cross_entropy"] = "point_cross_entropy"
    count_ignored: bool = Field(
        False, description="divide by all points, those on ignored pixels too, as MMSegmentation does by default"
    )

    def value(
        self, logits: PointLogits, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`."""
        from torch.nn import functional as F

        values = precise(logits.logits)
        targets = labels_at(logits.points, labels, canvas=canvas, align_corners=align_corners)
        weights = values.new_ones(values.shape[1]) if class_weights is None else class_weights.to(values)
        total = F.cross_entropy(values, targets, weight=weights, ignore_index=IGNORE, reduction="sum")
        below = weights[targets[targets != IGNORE]].sum()
        return quotient(total, below + (targets == IGNORE).sum() if self.count_ignored else below)

    def fits(self, logits: Any) -> bool:
        """Tell whether these are logits at points."""
        return isinstance(logits, PointLogits)

    def num_classes(self, logits: PointLogits) -> int:
        """Return K of the points' logits."""
        return int(logits.logits.shape[1])

    def example(self, labels: Tensor, classes: int, draw: Generator) -> PointLogits:
        """See `Loss`; 40 points in each image."""
        import torch

        logits = torch.randn(len(labels), classes, 40, generator=draw, dtype=torch.float64)
        return PointLogits(logits, torch.rand(len(labels), 40, 2, generator=draw))


def labels_at(points: Tensor, labels: Tensor, *, canvas: Canvas = None, align_corners: bool = False) -> Tensor:
    """Return the labels (N, P) int64 of the pixels that points (N, P, 2) lie in.

    Args:
        points: x and y as fractions of the canvas' width and height, 0..1.
        labels: (N, H, W) uint8 or int64, 0..K-1 or 255; the top left part of the canvas.
        canvas: (H', W') pixels; by default (H, W). Points on the rest of it get 255.
        align_corners: 0 and 1 are the centres of the outermost pixels, not their outer edges.
    """
    height, width = labels.shape[-2:]
    rows, columns = canvas or (height, width)
    x, y = points.unbind(2)
    column = (x * (columns - 1)).round() if align_corners else (x * columns).floor()
    row = (y * (rows - 1)).round() if align_corners else (y * rows).floor()
    column, row = column.long().clamp(0, columns - 1), row.long().clamp(0, rows - 1)
    inside = (column < width) & (row < height)
    index = row.clamp(max=height - 1) * width + column.clamp(max=width - 1)
    found = labels.flatten(1).long().gather(1, index)
    return found.masked_fill(~inside, IGNORE)


LOSS = PointCrossEntropy
