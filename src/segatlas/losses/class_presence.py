"""Tell which classes an image shows: the semantic encoding loss of EncNet."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.losses.base import Loss
from segatlas.structures import IGNORE


class ClassPresence(Loss):
    """Binary cross-entropy on whether each class occurs in the image's label, mean over labelled images and classes.

    Zhang et al. 2018, https://arxiv.org/abs/1803.08904, section 3.2. The logits are (N, K), one a class. An image
    without any labelled pixel says nothing about its classes and does not count; one labelled in part counts, and a
    class is present where a labelled pixel has it.

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
        weights = self.weights_for(logits)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        presence = class_presence(labels, logits.shape[1]).to(logits)
        labelled = (labels != IGNORE).flatten(1).any(1).to(logits)
        weight = logits.new_ones(logits.shape[1]) if weights is None else weights.to(logits)
        each = F.binary_cross_entropy_with_logits(logits, presence, reduction="none")
        total = labelled.sum() * weight.sum()
        return (each * weight * labelled.unsqueeze(1)).sum() / total.where(total > 0, torch.ones_like(total))


def class_presence(labels: Tensor, num_classes: int) -> Tensor:
    """Return (N, K) bool: which classes occur in labels (N, H, W) of 0..K-1 or 255."""
    flat = labels.flatten(1).long()
    found = torch.zeros(len(flat), max(num_classes, IGNORE) + 1, dtype=torch.bool, device=labels.device)
    found.scatter_(1, flat, value=True)
    return found[:, :num_classes]
