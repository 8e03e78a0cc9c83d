"""Cross-entropy over labelled pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas, Loss

if TYPE_CHECKING:
    from torch import Tensor


class CrossEntropy(Loss):
    """Cross-entropy over labelled pixels.

    The mean, as torch's: with class weights the sum is divided by the weights of the labelled pixels.
    """

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="fraction of the target spread over all classes")

    def value(
        self, logits: Tensor, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`."""
        from segatlas.ops import upsampled_cross_entropy

        return upsampled_cross_entropy(
            logits,
            labels,
            canvas=canvas,
            align_corners=align_corners,
            weight=class_weights,
            label_smoothing=self.label_smoothing,
        )


LOSS = CrossEntropy
