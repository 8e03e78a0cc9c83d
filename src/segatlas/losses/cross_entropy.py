"""Cross-entropy over all labelled pixels, or over the hard ones only."""

from __future__ import annotations

from torch import Tensor, nn

from segatlas.ops import upsampled_cross_entropy, upsampled_ohem


class CrossEntropy(nn.Module):
    """Mean cross-entropy over labelled pixels, weighted by class like torch's.

    Args:
        class_weights: (K,) factor of each class; the mean is divided by the sum of the pixels' factors.
        label_smoothing: share of the target spread evenly over all classes, 0..1.
    """

    class_weights: Tensor | None

    def __init__(self, *, class_weights: Tensor | None = None, label_smoothing: float = 0.0):
        super().__init__()
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.label_smoothing = label_smoothing

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
            label_smoothing=self.label_smoothing,
        )


class Ohem(nn.Module):
    """Cross-entropy over hard pixels only (online hard example mining; Shrivastava et al. 2016).

    Args:
        threshold: pixels whose true class has a lower probability are hard, 0..1.
        min_kept: pixels of the batch kept in any case, those with the lowest probabilities.
        class_weights: (K,) factor of each class.
    """

    class_weights: Tensor | None

    def __init__(self, *, threshold: float = 0.7, min_kept: int = 100_000, class_weights: Tensor | None = None):
        super().__init__()
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.threshold = threshold
        self.min_kept = min_kept

    def forward(
        self, logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None = None, align_corners: bool = False
    ) -> Tensor:
        """Map logits (N, K, h, w) and labels (N, H, W) to a scalar."""
        return upsampled_ohem(
            logits,
            labels,
            threshold=self.threshold,
            min_kept=self.min_kept,
            canvas=canvas,
            align_corners=align_corners,
            weight=self.class_weights,
        )
