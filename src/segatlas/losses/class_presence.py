"""Tell which classes a picture shows: the semantic encoding loss of EncNet."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.losses.base import Loss
from segatlas.structures import IGNORE


class ClassPresence(Loss):
    """Binary cross-entropy on whether each class occurs in the picture's label, mean over pictures and classes.

    Zhang et al. 2018, https://arxiv.org/abs/1803.08904, section 3.2. The logits are (N, K), one a class.

    Args:
        class_weights: (K,) weights of the mean over classes, or None.
    """

    def forward(
        self, logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None = None, align_corners: bool = False
    ) -> Tensor:
        """See `Loss`; `canvas` and `align_corners` play no part."""
        if logits.ndim != 2:
            raise UsageError(
                f"loss class_presence: expected logits (N, K), got {tuple(logits.shape)}; on: aux.presence?"
            )
        presence = class_presence(labels, logits.shape[1]).to(logits)
        weights = self.weights_for(logits)
        each = F.binary_cross_entropy_with_logits(logits, presence, reduction="none")
        if weights is None:
            return each.mean()
        return (each * weights.to(each)).sum() / (weights.sum() * len(logits))


def class_presence(labels: Tensor, num_classes: int) -> Tensor:
    """Return (N, K) bool: which classes occur in labels (N, H, W) of 0..K-1 or 255."""
    flat = labels.flatten(1).long()
    found = torch.zeros(len(flat), max(num_classes, IGNORE) + 1, dtype=torch.bool, device=labels.device)
    found.scatter_(1, flat, value=True)
    return found[:, :num_classes]
