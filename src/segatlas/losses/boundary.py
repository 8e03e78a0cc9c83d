"""Cross-entropy with pixels near a change of label weighted up."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from segatlas.losses.base import Loss
from segatlas.ops import upsampled_cross_entropy
from segatlas.structures import IGNORE


class Boundary(Loss):
    """Weighted mean of the cross-entropy: boundary pixels weigh `factor`, the others 1.

    The divisor is the sum of the weights, class weights included: a larger factor moves the balance, not the size.

    Args:
        width: pixels on each side of a change of label that are boundary.
        factor: their weight.
        class_weights: (K,) or None; multiplied with the pixel's weight.
    """

    def __init__(self, *, width: int = 3, factor: float = 5.0, class_weights: Tensor | None = None):
        super().__init__(class_weights)
        self.width = width
        self.factor = factor

    def forward(
        self, logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None = None, align_corners: bool = False
    ) -> Tensor:
        """See `Loss`."""
        near = near_boundary(labels, self.width)
        return upsampled_cross_entropy(
            logits,
            labels,
            canvas=canvas,
            align_corners=align_corners,
            weight=self.weights_for(logits),
            pixel_weight=near * (self.factor - 1.0) + 1.0,
        )


def near_boundary(labels: Tensor, width: int) -> Tensor:
    """Return where a pixel has another label at most `width` rows and `width` columns away, (N, H, W) bool.

    Args:
        labels: (N, H, W) integer; 255 is no label: such pixels are never near, and a border to them is no boundary.
        width: pixels, at least 1.
    """
    labelled = labels != IGNORE
    values = labels.float()
    nothing = values.new_tensor(-torch.inf)
    # One pooling for the largest label of the window and, by the sign, for the smallest.
    both = torch.stack([values.where(labelled, nothing), (-values).where(labelled, nothing)], 1)
    columns = max_pool2d(both, (1, 2 * width + 1), stride=1, padding=(0, width))
    largest, smallest = max_pool2d(columns, (2 * width + 1, 1), stride=1, padding=(width, 0)).unbind(1)
    return labelled & (largest != -smallest)
