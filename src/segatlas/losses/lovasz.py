"""Lovász-Softmax: a piecewise linear surrogate of the mean IoU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segatlas.ops import raise_logits
from segatlas.structures import IGNORE


class Lovasz(nn.Module):
    """Mean over classes present of the Lovász extension of the Jaccard loss (Berman et al. 2018).

    For each class, pixels are sorted by their error |truth - probability|; the error at rank i counts with the amount
    by which the Jaccard loss grows when the i worst pixels become wrong. All probabilities are needed at full size:
    this is the one loss that pays for the full-size logits.

    Args:
        per_image: compute the loss picture by picture and take the mean over the pictures with labelled pixels,
            instead of once over the batch.
        class_weights: (K,) factor of each class in the mean.
    """

    class_weights: Tensor | None

    def __init__(self, *, per_image: bool = False, class_weights: Tensor | None = None):
        super().__init__()
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.per_image = per_image

    def forward(
        self, logits: Tensor, labels: Tensor, canvas: tuple[int, int] | None = None, align_corners: bool = False
    ) -> Tensor:
        """Map logits (N, K, h, w) and labels (N, H, W) to a scalar."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        size = labels.shape[1], labels.shape[2]
        probabilities = raise_logits(logits, size, canvas=canvas, align_corners=align_corners).softmax(1)
        parts = len(labels) if self.per_image else 1
        losses = []
        for group, truth in zip(probabilities.chunk(parts), labels.chunk(parts), strict=True):
            labelled = truth != IGNORE
            if labelled.any():
                losses.append(self._flat(group.movedim(1, -1)[labelled], truth[labelled].long()))
        # The empty sum keeps a batch without labels connected to the network, with a zero gradient.
        return torch.stack(losses).mean() if losses else probabilities[..., :0].sum()

    def _flat(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        """probabilities: (P, K); labels: (P,), all labelled."""
        present = labels.unique()
        losses = torch.stack([lovasz_jaccard(probabilities[:, k], labels == k) for k in present.tolist()])
        if self.class_weights is None:
            return losses.mean()
        share = self.class_weights.to(losses)[present]
        return (losses * share).sum() / share.sum().clamp(min=torch.finfo(share.dtype).tiny)


def lovasz_jaccard(probability: Tensor, truth: Tensor) -> Tensor:
    """Return the Lovász extension of one class's Jaccard loss. probability: (P,), truth: (P,) bool."""
    truth = truth.to(probability.dtype)
    errors, order = (truth - probability).abs().sort(descending=True, stable=True)
    with torch.no_grad():
        truth = truth[order]
        # After the i worst pixels are wrong: intersection and union of what is left.
        intersection = truth.sum() - truth.cumsum(0)
        union = truth.sum() + (1 - truth).cumsum(0)
        jaccard = 1 - intersection / union
        growth = torch.diff(jaccard, prepend=jaccard.new_zeros(1))
    return (errors * growth).sum()
