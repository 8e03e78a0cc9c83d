"""Cross-entropy with well classified pixels weighted down."""

from __future__ import annotations

import torch
from torch import Tensor

from segatlas.losses.base import Loss
from segatlas.ops import upsampled_log_likelihood
from segatlas.structures import IGNORE

TINY = 1e-12
"""Least value of 1 - p: a power below one has no finite slope at 0."""


class Focal(Loss):
    """Mean of -(1 - p)^gamma log p with p the softmax probability of the true class.

    Lin et al. 2017, https://arxiv.org/abs/1708.02002, over all classes at once. As with cross-entropy, class weights
    are in the sum and in the divisor, so that gamma = 0 is `CrossEntropy`.

    Args:
        gamma: how strongly; 0 is plain cross-entropy.
        class_weights: (K,) or None.
    """

    def __init__(self, *, gamma: float = 2.0, class_weights: Tensor | None = None):
        super().__init__(class_weights)
        self.gamma = gamma

    def forward(
        self, logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None = None, align_corners: bool = False
    ) -> Tensor:
        """See `Loss`."""
        weights = self.weights_for(logits)
        log_p = upsampled_log_likelihood(logits, labels, canvas=canvas, align_corners=align_corners)
        labelled = labels != IGNORE
        weight = labelled.to(log_p.dtype)
        if weights is not None:
            weight = weight * weights.to(log_p)[labels.long().masked_fill(~labelled, 0)]
        missing = (-torch.expm1(log_p)).clamp(min=TINY)  # 1 - p, exact near p = 1
        total = weight.sum()
        return -(weight * missing**self.gamma * log_p).sum() / total.where(total > 0, torch.ones_like(total))
