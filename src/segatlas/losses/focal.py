"""Cross-entropy with well classified pixels weighted down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from segatlas.losses.loss import Canvas, Loss, quotient
from segatlas.structures import IGNORE

if TYPE_CHECKING:
    from torch import Tensor

TINY = 1e-12
"""Least value of 1 - p: a power below one has no finite slope at 0."""


class Focal(Loss):
    """Cross-entropy with well classified pixels weighted down by (1 - p)^gamma.

    The mean of -(1 - p)^gamma log p with p the softmax probability of the true class (Lin et al. 2017,
    https://arxiv.org/abs/1708.02002), over all classes at once. As with cross-entropy, class weights are in the sum and
    in the divisor, so that gamma = 0 is `CrossEntropy`.
    """

    name: Literal["focal"] = "focal"
    gamma: float = Field(2.0, ge=0, le=100, description="0 is plain cross-entropy")

    def value(
        self, logits: Tensor, labels: Tensor, canvas: Canvas, align_corners: bool, class_weights: Tensor | None
    ) -> Tensor:
        """See `Loss`."""
        from segatlas.ops import upsampled_log_likelihood

        log_p = upsampled_log_likelihood(logits, labels, canvas=canvas, align_corners=align_corners)
        labelled = labels != IGNORE
        weight = labelled.to(log_p.dtype)
        if class_weights is not None:
            weight = weight * class_weights.to(log_p)[labels.long().masked_fill(~labelled, 0)]
        missing = (-log_p.expm1()).clamp(min=TINY)  # 1 - p, exact near p = 1
        return quotient(-(weight * missing**self.gamma * log_p).sum(), weight.sum())


LOSS = Focal
