"""Cross-entropy over hard pixels only."""

from __future__ import annotations

from torch import Tensor

from segatlas.losses.base import Loss
from segatlas.ops import upsampled_ohem


class Ohem(Loss):
    """Online hard example mining (Shrivastava et al. 2016, https://arxiv.org/abs/1604.03540), pixel by pixel.

    Args:
        threshold: pixels whose true class has a probability below it are hard.
        min_kept: pixels of the batch kept at least, the hardest ones.
        class_weights: (K,) weights of the mean over kept pixels, or None.
    """

    def __init__(self, *, threshold: float = 0.7, min_kept: int = 100_000, class_weights: Tensor | None = None):
        super().__init__(class_weights)
        self.threshold = threshold
        self.min_kept = min_kept

    def forward(
        self, logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None = None, align_corners: bool = False
    ) -> Tensor:
        """See `Loss`."""
        return upsampled_ohem(
            logits,
            labels,
            threshold=self.threshold,
            min_kept=self.min_kept,
            canvas=canvas,
            align_corners=align_corners,
            weight=self.weights_for(logits),
        )
