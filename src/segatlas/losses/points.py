"""Cross-entropy at single points of the canvas."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.losses.base import Loss
from segatlas.structures import IGNORE, PointLogits


class PointCrossEntropy(Loss):
    """Mean cross-entropy over the points that lie on labelled pixels (Kirillov et al. 2020).

    In place of a map of logits it takes `PointLogits`; a point has the label of the pixel that it lies in.

    Args:
        class_weights: (K,) or None; the sum is then divided by the weights of these points.
    """

    def forward(
        self, logits: PointLogits, labels: Tensor, canvas: tuple[int, int] | None = None, align_corners: bool = False
    ) -> Tensor:
        """See `Loss`."""
        values = logits.logits if logits.logits.dtype == torch.float64 else logits.logits.float()
        targets = labels_at(logits.points, labels, canvas=canvas, align_corners=align_corners)
        weights = self.weights_for(values)
        weights = values.new_ones(values.shape[1]) if weights is None else weights.to(values)
        total = F.cross_entropy(values, targets, weight=weights, ignore_index=IGNORE, reduction="sum")
        divisor = weights[targets[targets != IGNORE]].sum()
        return total / divisor.where(divisor > 0, torch.ones_like(divisor))


def labels_at(
    points: Tensor, labels: Tensor, *, canvas: tuple[int, int] | None = None, align_corners: bool = False
) -> Tensor:
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
    return found.where(inside, torch.full_like(found, IGNORE))
