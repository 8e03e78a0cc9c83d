"""The cross-entropy of two classes: all of it depends on one map, the difference of their logits.

Of the other class's logit less the true one's, u, the loss is log(1 + exp(u)) and its derivative 1 / (1 + exp(-u)); of
what label smoothing gives to the other class, both are less by u and 1. So half as much is upsampled, there is no sum
over classes, and all slots of a chunk are done at once, for one of them has too few values to be worth a call.

Letters as in `ops.upsampled_loss`.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from segatlas.ops.lattice import LN_2, LOG2_E, Lattice

STEEP = 60.0
"""Where 2 ** -u is nothing beside 1, in float64 too, and 2 ** u still far from what float32 holds."""


def walk_two_classes(
    logits: Tensor,
    labels: Tensor,
    lattice: Lattice,
    *,
    weight: Tensor | None,
    smoothing: float,
    ignore_index: int,
    pixel_weight: Tensor | None,
    needs_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return sum of losses, sum of weights (float64 scalars), gradient of the former (N, 2, h, w).

    Arguments are those of `upsampled_cross_entropy`, logits (N, 2, h, w).
    """
    dtype = lattice.rows.weight.dtype
    loss = torch.zeros((), dtype=torch.float64, device=logits.device)
    total = torch.zeros_like(loss)
    gradient = lattice.new_gradient() if needs_gradient else None
    for chunk in lattice.chunks(held=lattice.rows.slots * lattice.columns.slots):
        both = chunk.samples(logits)
        difference = both[:, 1:].sub(both[:, :1]).mul_(LOG2_E)
        steep = bool(difference.abs().amax() > STEEP)
        sign = chunk.marks(labels, partial(_signed, ignore_index=ignore_index)).to(dtype)
        against = chunk.all_values(difference).squeeze(3).mul_(sign)  # u, in powers of two
        own = sign.abs()
        if pixel_weight is not None:
            own.mul_(chunk.read(pixel_weight))
        weighted = own if weight is None else own * _by_truth(sign, weight.to(own))
        total += weighted.sum()
        scale, other = weighted, None
        if smoothing:
            spread = own.new_ones(2) if weight is None else weight.to(own)
            spread = spread * (smoothing / 2)
            other = own * _by_truth(-sign, spread)  # what the other class gets
            scale = weighted * (1 - smoothing) + own * spread.sum()
            loss -= LN_2 * (other * against).sum()
        if steep:
            loss += LN_2 * (scale * (against - STEEP).clamp_(min=0)).sum()
            against.clamp_(max=STEEP)
        power = against.exp2_()
        below = power + 1
        if gradient is not None:
            slope = power.div_(below).mul_(scale)
            slope = (slope if other is None else slope.sub_(other)).mul_(sign)
            chunk.all_backward(slope.unsqueeze(3), gradient[:, 1:])
        loss += below.log_().mul_(scale).sum()
    if gradient is not None:
        torch.neg(gradient[:, 1], out=gradient[:, 0])
    return loss, total, gradient


def _by_truth(sign: Tensor, values: Tensor) -> Tensor:
    """Return the value of class 0 where sign is 1, else that of class 1."""
    return torch.where(sign > 0, values[0], values[1])


def _signed(labels: Tensor, ignore_index: int) -> Tensor:
    """Return int8: 1 where class 0 is true, -1 where class 1 is, 0 without label."""
    labelled = labels != ignore_index
    second = (labels == 1).logical_and_(labelled)
    return torch.sub(labelled.view(torch.int8), second.view(torch.int8), alpha=2)
