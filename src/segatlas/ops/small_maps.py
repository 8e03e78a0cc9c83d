"""The blocks of `upsampled_loss` for maps so small that building the full-size logits costs less than walking them.

A walk takes hundreds of short operations whatever the size, and what it spares, memory, is not short here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MOST = 1 << 20
"""Numbers of the full-size logits, N K H' W', up to which this way is as quick on a thread, and quicker on several."""


def are_small(logits: Tensor, canvas: tuple[int, int]) -> bool:
    """Tell whether logits (N, K, h, w), upsampled to the canvas, are small, on a processor.

    On a GPU torch's upsampling adds its gradient up in any order, which a run that repeats itself cannot have.
    """
    return logits.device.type == "cpu" and logits.shape[0] * logits.shape[1] * canvas[0] * canvas[1] <= MOST


def log_probabilities(logits: Tensor, size: tuple[int, int], canvas: tuple[int, int], align_corners: bool) -> Tensor:
    """Return the logs (N, K, H, W) at full size, in float32; float64 for float64 logits."""
    with torch.autocast(logits.device.type, enabled=False):
        values = logits.to(torch.promote_types(logits.dtype, torch.float32))
        values = F.interpolate(values, canvas, mode="bilinear", align_corners=align_corners)
        return values[..., : size[0], : size[1]].log_softmax(1)


def small_cross_entropy(
    log_p: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    smoothing: float,
    ignore_index: int,
    pixel_weight: Tensor | None,
) -> Tensor:
    """Return what `upsampled_cross_entropy` does of `log_probabilities`; labels (N, H, W)."""
    index, labelled = _targets(labels, ignore_index)
    own = labelled.to(log_p.dtype) if pixel_weight is None else labelled * pixel_weight.to(log_p.dtype)
    of_class = None if weight is None else weight.to(log_p.dtype)
    weighted = own if of_class is None else own * of_class[index]
    loss = (weighted * (smoothing - 1) * log_p.gather(1, index[:, None])[:, 0]).sum()
    if smoothing:
        spread = log_p if of_class is None else log_p * of_class.view(-1, 1, 1)
        loss = loss - smoothing / log_p.shape[1] * (own * spread.sum(1)).sum()
    total = weighted.sum()
    return loss / total.where(total > 0, 1)


def small_log_likelihood(log_p: Tensor, labels: Tensor, ignore_index: int) -> Tensor:
    """Return what `upsampled_log_likelihood` does of `log_probabilities`."""
    index, labelled = _targets(labels, ignore_index)
    return log_p.gather(1, index[:, None])[:, 0] * labelled


def small_overlap(log_p: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return the sums of probabilities that `upsampled_overlap` does, of `log_probabilities`."""
    index, labelled = _targets(labels, ignore_index)
    p = log_p.exp() * labelled[:, None]
    true = p.gather(1, index[:, None])[:, 0]
    shared = torch.zeros(p.shape[1], dtype=torch.float64, device=p.device)  # added one by one: float32 loses pixels
    shared = shared.index_add(0, index.flatten(), true.flatten().double())
    return shared.to(p.dtype), p.sum((0, 2, 3), dtype=torch.float64).to(p.dtype)


def _targets(labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    labelled = labels != ignore_index
    return labels.long() * labelled, labelled
