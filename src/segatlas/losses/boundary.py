"""Cross-entropy that looks harder at the boundaries between classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from segatlas.ops import upsampled_cross_entropy
from segatlas.structures import IGNORE


class Boundary(nn.Module):
    """Cross-entropy with the pixels near a change of label weighted up; a weighted mean.

    Args:
        width: pixels on each side of a change that count as near.
        factor: weight of those pixels; the others have 1.
        class_weights: (K,) further factor of each class.
    """

    class_weights: Tensor | None

    def __init__(self, *, width: int = 3, factor: float = 5.0, class_weights: Tensor | None = None):
        super().__init__()
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.width = width
        self.factor = factor

    def forward(
        self, logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None = None, align_corners: bool = False
    ) -> Tensor:
        """Map logits (N, K, h, w) and labels (N, H, W) to a scalar."""
        return upsampled_cross_entropy(
            logits,
            labels,
            canvas=canvas,
            align_corners=align_corners,
            weight=self.class_weights,
            pixel_weight=1 + (self.factor - 1) * near_boundary(labels, self.width),
        )


@torch.no_grad()
def near_boundary(labels: Tensor, width: int) -> Tensor:
    """Return 1.0 for pixels at most `width` pixels from a change of label, else 0.0; (N, H, W) float32.

    A change lies between two neighbours (left-right or up-down) of different classes; 255 makes none. The two pixels
    at the change are its first pixel on each side; distance is the larger of the horizontal and the vertical one.
    """
    change = torch.zeros_like(labels, dtype=torch.float32)
    for dim in (1, 2):
        length = labels.shape[dim] - 1
        first, second = labels.narrow(dim, 0, length), labels.narrow(dim, 1, length)
        differs = ((first != second) & (first != IGNORE) & (second != IGNORE)).float()
        for start in (0, 1):
            part = change.narrow(dim, start, length)
            torch.maximum(part, differs, out=part)
    if width > 1:
        side, reach = 2 * width - 1, width - 1
        change = max_pool2d(change, (1, side), 1, (0, reach))
        change = max_pool2d(change, (side, 1), 1, (reach, 0))
    return change
