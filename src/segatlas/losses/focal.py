"""Focal loss: cross-entropy that looks away from what is already right."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segatlas.ops import upsampled_log_likelihood
from segatlas.structures import IGNORE


class Focal(nn.Module):
    """Mean over labelled pixels of (1 - p)^gamma * -log p, p the probability of the true class (Lin et al. 2017).

    Args:
        gamma: how strongly well classified pixels are weighted down; 0 is cross-entropy.
        class_weights: (K,) factor of each class; the mean is divided by the sum of the pixels' factors.
    """

    class_weights: Tensor | None

    def __init__(self, *, gamma: float = 2.0, class_weights: Tensor | None = None):
        super().__init__()
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.gamma = gamma

    def forward(
        self, logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None = None, align_corners: bool = False
    ) -> Tensor:
        """Map logits (N, K, h, w) and labels (N, H, W) to a scalar."""
        log_likelihood = upsampled_log_likelihood(logits, labels, canvas=canvas, align_corners=align_corners)
        labelled = labels != IGNORE
        share = labelled.to(log_likelihood.dtype)
        if self.class_weights is not None:
            share = share * self.class_weights.to(share)[labels.long().masked_fill(~labelled, 0)]
        # expm1 keeps the digits of 1 - p for p near 1; a floor keeps the slope of the power finite at p = 1
        miss = -torch.expm1(log_likelihood)
        focus = miss.clamp(min=torch.finfo(miss.dtype).tiny) ** self.gamma
        total = -(focus * log_likelihood * share).sum()
        divisor = share.sum()
        return total / divisor.where(divisor > 0, 1)
