"""Cross-entropy over labelled pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas, Loss

if TYPE_CHECKING:
    from torch import Tensor


class CrossEntropy(Loss):
    """Cross-entropy over labelled pixels.

    The mean, as torch's: with class weights the sum is divided by the weights of the labelled pixels. With
    `count_ignored` an ignored pixel counts there too, as one of weight 1: parts of a batch, one after another, then
    weigh as much as in the whole batch, whatever is ignored in them.
    """

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="fraction of the target spread over all classes")
    count_ignored: bool = Field(
        False, description="divide by all pixels, ignored ones too, as MMSegmentation does by default"
    )

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
            count_ignored=self.count_ignored,
        )


LOSS = CrossEntropy
