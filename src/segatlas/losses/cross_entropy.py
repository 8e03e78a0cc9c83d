"""Cross-entropy over labelled pixels."""

from __future__ import annotations

from torch import Tensor

from segatlas.losses.base import Loss
from segatlas.ops import upsampled_cross_entropy


class CrossEntropy(Loss):
    """Mean cross-entropy, as torch's: with class weights the sum is divided by the weights of the labelled pixels.

    Args:
        label_smoothing: fraction of the target spread evenly over all classes, 0..1.
        class_weights: (K,) or None.
    """

    def __init__(self, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None):
        super().__init__(class_weights)
        self.label_smoothing = label_smoothing

    def forward(
        self, logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None = None, align_corners: bool = False
    ) -> Tensor:
        """See `Loss`."""
        return upsampled_cross_entropy(
            logits,
            labels,
            canvas=canvas,
            align_corners=align_corners,
            weight=self.weights_for(logits),
            label_smoothing=self.label_smoothing,
        )
