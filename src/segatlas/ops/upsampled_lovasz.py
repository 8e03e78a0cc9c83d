"""Lovász-Softmax from low-resolution logits: a sort per class, and never more than a few numbers per pixel.

A first walk over the upsampling finds the softmax denominator of every pixel. With it, the probability of one class is
made from that class's logits alone. Class by class the errors are sorted and their slopes found; what a class sends
back through the softmax splits into a part of its own, which goes down to low resolution at once, and one sum per pixel
that all classes share, which a last walk turns into the rest of the gradient. Value and gradient are made together.

Letters: N batch, K classes, (h, w) logits, (H, W) labels, M = N * H * W pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segatlas.ops.labels import PIECE, check_labels, count_labels, size_of
from segatlas.ops.lattice import Chunk, Lattice
from segatlas.ops.upsampled_loss import scaled, to_softmax
from segatlas.structures import IGNORE

PLACE_BITS = 32
"""Low bits of a sorting key, which hold a pixel's place; the high ones are those of its error."""
PLACE_MASK = (1 << PLACE_BITS) - 1


def upsampled_lovasz(
    logits: Tensor,
    labels: Tensor,
    *,
    canvas: tuple[int, int] | None = None,
    align_corners: bool = False,
    weight: Tensor | None = None,
    ignore_index: int = IGNORE,
) -> Tensor:
    """Return Lovász-Softmax (Berman et al. 2018) over all labelled pixels of the batch, mean over the classes in them.

    Args:
        logits: (N, K, h, w) float; half precision is computed in float32.
        labels: (N, H, W) uint8 or int, 0..K-1 or ignore_index.
        canvas: (H', W') pixels that the logits cover; default (H, W).
        align_corners: as in `torch.nn.functional.interpolate`.
        weight: (K,) weights of the mean over classes.
        ignore_index: label of pixels without truth.

    Returns:
        A scalar in float32 (float64 for float64 logits, whose errors are put in order as float32); 0 with zero gradient
        where no pixel has a label.

    Raises:
        UsageError: shapes do not fit together, or a label is out of range.
    """
    check_labels(logits, labels, canvas, ignore_index)
    counts = count_labels(labels, logits.shape[1], ignore_index)
    fraction = (counts > 0).to(torch.promote_types(logits.dtype, torch.float32))
    if weight is not None:
        fraction *= weight.to(fraction)
    total = fraction.sum()
    fraction /= total.where(total > 0, 1)
    lattice = Lattice.of(logits, size_of(labels), canvas=canvas, align_corners=align_corners)
    return _Lovasz.apply(logits, labels, lattice, fraction.tolist(), counts.tolist(), ignore_index)


def jaccard_steps(truth: Tensor, count: int, hits: int | Tensor = 0, seen: int = 0) -> Tensor:
    """Return by how much the Jaccard loss 1 - I / U grows when each pixel in turn becomes wrong, (m,) float64.

    A wrong pixel of the class takes one from I: the step is 1 / U. Any other wrong pixel adds one to U: the step is
    I / (U - 1) - I / U. Whole numbers throughout, so that the small steps of large images keep all their digits.

    Args:
        truth: (m,) bool, which of these pixels are of the class, in the order in which they become wrong.
        count: pixels of the class in all, at least 1.
        hits: pixels of the class among those that became wrong before.
        seen: all pixels that became wrong before.
    """
    taken = truth.cumsum(0) + hits
    union = count + torch.arange(seen + 1, seen + 1 + len(truth), device=truth.device) - taken
    return torch.where(truth, 1 / union.double(), (count - taken) / (union * (union - 1).clamp(min=1)).double())


class _Lovasz(torch.autograd.Function):
    """Loss and gradient together. fraction: K weights of sum 1, 0 for absent classes; counts: K pixel counts."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        lattice: Lattice,
        fraction: list[float],
        counts: list[int],
        ignore_index: int,
    ) -> Tensor:
        dtype = lattice.rows.weight.dtype
        gradient = torch.zeros(logits.shape, dtype=dtype, device=logits.device) if ctx.needs_input_grad[0] else None
        with torch.autocast(logits.device.type, enabled=False):
            loss = _walk_classes(logits, labels, lattice, fraction, counts, ignore_index, gradient)
        if gradient is not None:
            ctx.save_for_backward(gradient.to(logits.dtype))
        return loss.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (scaled(gradient, upstream), *[None] * 5)


def _walk_classes(
    logits: Tensor,
    labels: Tensor,
    lattice: Lattice,
    fraction: list[float],
    counts: list[int],
    ignore_index: int,
    gradient: Tensor | None,
) -> Tensor:
    """Return the loss, a float64 scalar, and add its gradient to gradient (N, K, h, w)."""
    labels = labels.contiguous()
    plane = Lattice(torch.Size((len(logits), 1, *logits.shape[2:])), lattice.rows, lattice.columns, lattice.device)
    largest = logits.amax(1, keepdim=True).to(lattice.rows.weight.dtype)
    log_total = _log_total(logits, lattice)
    common = torch.zeros_like(log_total)  # sum over classes j of p_j * dloss/dp_j
    flow = torch.empty_like(log_total)  # of the class at hand: probability p, then p * dloss/dp
    keys = torch.empty(labels.numel(), dtype=torch.int64, device=labels.device)
    loss = torch.zeros((), dtype=torch.float64, device=logits.device)
    for k, weight in enumerate(fraction):
        if weight == 0:
            continue
        channel = logits[:, k : k + 1] - largest
        for chunk in plane.chunks():
            values = chunk.new(logits, flow.dtype)
            for slot, upsampled in chunk.values(channel):
                values[slot] = upsampled[:, 0]
            chunk.write(flow, values)
        flow.sub_(log_total).exp2_()
        _sort_by_error(keys, flow, labels, k, ignore_index)
        ignored = len(keys) - sum(counts)
        loss += weight * _apply_slopes(keys[ignored:], flow, labels, k, counts[k], weight)
        if gradient is not None:
            flow.masked_fill_(labels == ignore_index, 0)
            common += flow
            _lower(flow, plane, channel, gradient[:, k : k + 1])
    del flow, keys
    if gradient is not None:
        # dloss/dv_k = p_k * dloss/dp_k - p_k * common
        for chunk in lattice.chunks():
            factor = _read_sparing(chunk, common).neg_().unsqueeze(3)
            for slot, values in chunk.backward(logits, gradient, level=True):
                to_softmax(values, factor[slot])
    return loss


def _log_total(logits: Tensor, lattice: Lattice) -> Tensor:
    """Return log2 of the sum over classes of e ** (upsampled logit - upsampled largest logit), (N, H, W)."""
    result = lattice.new_map(lattice.rows.weight.dtype)
    for chunk in lattice.chunks():
        top = chunk.new(logits, result.dtype)
        total = torch.empty_like(top)
        for slot, values in chunk.values(logits, level=True):
            torch.amax(values, 1, out=top[slot])
            torch.sum(values.sub_(top[slot].unsqueeze(1)).exp2_(), 1, out=total[slot])
        chunk.write(result, total.log2_().add_(top))
    return result


def _sort_by_error(keys: Tensor, probability: Tensor, labels: Tensor, k: int, ignore_index: int) -> None:
    """Fill keys (M,) with error and place of every pixel, the smallest error first; ignored pixels lead, as -1.

    One sort of whole numbers, in place: several times quicker than asking for an order, and nothing beside it.
    """
    step = PIECE if keys.device.type == "cpu" else len(keys)
    probability, labels = probability.view(-1), labels.view(-1)
    for start in range(0, len(keys), step):
        label = labels[start : start + step]
        error = probability[start : start + step].sub((label == k).to(probability.dtype)).abs_().float()
        place = torch.arange(start, start + len(label), device=keys.device)
        key = error.view(torch.int32).long() << PLACE_BITS | place
        keys[start : start + step] = key.masked_fill_(label == ignore_index, -1)
    if keys.device.type == "cpu":
        keys.numpy().sort()
    else:
        keys.copy_(keys.sort().values)


def _apply_slopes(keys: Tensor, flow: Tensor, labels: Tensor, k: int, count: int, weight: float) -> Tensor:
    """Return the extension of class k, float64, and turn flow from p into p * dloss/dp at the pixels of the keys."""
    flow, labels = flow.view(-1), labels.view(-1)
    loss = torch.zeros((), dtype=torch.float64, device=keys.device)
    hits: int | Tensor = 0
    step = PIECE if keys.device.type == "cpu" else len(keys)
    for seen in range(0, len(keys), step):
        place = keys[max(0, len(keys) - seen - step) : len(keys) - seen].flip(0) & PLACE_MASK
        truth = labels.index_select(0, place) == k
        slope = jaccard_steps(truth, count, hits, seen)
        hits = hits + truth.sum()
        probability = flow.index_select(0, place)
        loss += probability.sub(truth.to(flow.dtype)).abs_().double() @ slope
        flow.scatter_(0, place, torch.where(truth, -slope, slope).mul_(weight).to(flow.dtype) * probability)
    return loss


def _lower(flow: Tensor, plane: Lattice, channel: Tensor, gradient: Tensor) -> None:
    """Add the adjoint of the upsampling of flow (N, H, W) to gradient (N, 1, h, w)."""
    for chunk in plane.chunks():
        back = _read_sparing(chunk, flow)
        for slot, values in chunk.backward(channel, gradient):
            values[:, 0] = back[slot]


def _read_sparing(chunk: Chunk, full: Tensor) -> Tensor:
    """Return `chunk.read`, with 0 for fillers."""
    values = chunk.read(full)
    fillers = chunk.fillers()
    return values if fillers is None else values.masked_fill_(fillers, 0)
