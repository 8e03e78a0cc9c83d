"""Losses at full size from low-resolution logits, without building the full-size logits or their gradient.

Everything walks the upsampling chunk by chunk and slot by slot (`ops.lattice`), so the extra memory is a few small
buffers and, where a second pass is needed, one float per pixel. Three building blocks:

- `upsampled_cross_entropy`: loss and gradient in one pass, the gradient being made while the values are at hand;
- `upsampled_log_likelihood`: log-probability of the true class of every pixel, (N, H, W), differentiable by a second
  pass; any loss of that quantity follows (OHEM, focal);
- `upsampled_overlap`: per class soft intersection, prediction and label sums, differentiable by a second pass; Dice and
  Tversky follow.

Small maps are built at full size instead (`ops.small_maps`), which takes less time and little memory.

Letters: N batch, K classes, (h, w) logits, (H', W') canvas, (H, W) labels (H <= H', W <= W': the rest is padding).
Labels are 0..K-1, or `ignore_index` where a pixel has none: such a pixel adds nothing and gets no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segatlas.errors import UsageError
from segatlas.ops.labels import check_labels, count_labels, fraction_of_all, size_of
from segatlas.ops.lattice import LN_2, Chunk, Lattice, by_slot
from segatlas.ops.selection import kth_smallest
from segatlas.ops.small_maps import (
    are_small,
    log_probabilities,
    small_cross_entropy,
    small_log_likelihood,
    small_overlap,
)
from segatlas.ops.two_classes import walk_two_classes
from segatlas.structures import IGNORE

SMALLEST_TOTAL = 1e-25
"""Softmax denominators below this (relative to the largest logit around) send a loss to the slower, safe form."""


def upsampled_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    canvas: tuple[int, int] | None = None,
    align_corners: bool = False,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = IGNORE,
    pixel_weight: Tensor | None = None,
    count_ignored: bool = False,
) -> Tensor:
    """Return the mean cross-entropy over labelled pixels of logits upsampled bilinearly to the canvas.

    Equal to `interpolate` followed by torch's `cross_entropy(..., reduction="mean")`, its weighted mean included: the
    sum is divided by the sum of the weights of the labelled pixels. Without any labelled pixel the loss is 0 with
    zero gradient (torch gives NaN).

    Args:
        logits: (N, K, h, w) float; half precision is computed in float32.
        labels: (N, H, W) uint8 or int, 0..K-1 or ignore_index.
        canvas: (H', W') pixels that the logits cover; default (H, W).
        align_corners: as in `torch.nn.functional.interpolate`.
        weight: (K,) weight of each class.
        label_smoothing: fraction of the target spread evenly over all classes, 0..1.
        ignore_index: label of pixels without truth.
        pixel_weight: (N, H, W) further factor of each pixel, in the sum and in the divisor.
        count_ignored: divide by the weights of all pixels, those without truth having weight 1.

    Returns:
        A scalar in float32 (float64 for float64 logits).

    Raises:
        UsageError: shapes do not fit together, or a label is out of range.
    """
    check_labels(logits, labels, canvas, ignore_index)
    if pixel_weight is not None and pixel_weight.shape != labels.shape:
        raise UsageError(f"pixel_weight {tuple(pixel_weight.shape)} does not match labels {tuple(labels.shape)}")
    size = size_of(labels)
    if are_small(logits, canvas or size):
        log_p = log_probabilities(logits, size, canvas or size, align_corners)
        loss = small_cross_entropy(log_p, labels, weight, label_smoothing, ignore_index, pixel_weight)
    else:
        lattice = Lattice.of(logits, size, canvas=canvas, align_corners=align_corners)
        loss = _CrossEntropy.apply(logits, labels, lattice, weight, label_smoothing, ignore_index, pixel_weight)
    if not count_ignored:
        return loss
    if pixel_weight is not None:
        raise UsageError("count_ignored: not together with pixel_weight")
    return loss * fraction_of_all(labels, labels, weight, ignore_index).to(loss.dtype)


def upsampled_ohem(
    logits: Tensor,
    labels: Tensor,
    *,
    threshold: float = 0.7,
    min_kept: int = 100_000,
    canvas: tuple[int, int] | None = None,
    align_corners: bool = False,
    weight: Tensor | None = None,
    ignore_index: int = IGNORE,
    count_ignored: bool = False,
    by_count: bool = False,
) -> Tensor:
    """Return the mean cross-entropy over hard pixels only (online hard example mining).

    Hard are the labelled pixels whose true class has a probability below `threshold`, and in any case the `min_kept`
    pixels of the batch with the lowest ones (all of them if there are fewer). A first pass finds them, a second one is
    `upsampled_cross_entropy` over them; both are banded. The mean runs over the kept pixels, weighted by class, with
    `count_ignored` over all pixels, easy ones being 0; with `by_count` it is the sum of the weighted pixels over how
    many are kept. Other arguments, errors and the empty case are as there.
    """
    with torch.no_grad():
        probability = upsampled_log_likelihood(
            logits, labels, canvas=canvas, align_corners=align_corners, ignore_index=ignore_index
        ).exp_()
        kept = _hard_labels(probability, labels, threshold, min_kept, ignore_index, logits.shape[1])
        del probability  # not needed beside the second pass
    easy = logits.shape[1]
    loss = upsampled_cross_entropy(
        logits, kept, canvas=canvas, align_corners=align_corners, weight=weight, ignore_index=easy
    )
    if by_count and weight is not None:
        counts = count_labels(kept, len(weight), easy)
        mean_weight = (counts * weight.to(counts.device).double()).sum() / counts.sum().clamp(min=1)
        return loss * mean_weight.to(loss.dtype)
    if not count_ignored:
        return loss
    return loss * fraction_of_all(kept, labels, weight, ignore_index, without=easy).to(loss.dtype)


def _hard_labels(
    probability: Tensor, labels: Tensor, threshold: float, min_kept: int, ignore_index: int, classes: int
) -> Tensor:
    """Return the labels of the hard pixels, `classes` elsewhere; uint8 where it holds that number.

    probability: (N, H, W) of the true class; overwritten where there is no label.
    """
    probability.masked_fill_(labels == ignore_index, torch.inf)
    if int(torch.count_nonzero(probability < threshold)) >= min_kept:  # the min_kept lowest are among these
        easy = probability >= threshold
    elif int(torch.count_nonzero(probability < torch.inf)) > min_kept:
        easy = probability > kth_smallest(probability, min_kept)
    else:
        easy = probability == torch.inf
    return labels.to(torch.uint8 if classes <= 255 else torch.int32, copy=True).masked_fill_(easy, classes)


def upsampled_log_likelihood(
    logits: Tensor,
    labels: Tensor,
    *,
    canvas: tuple[int, int] | None = None,
    align_corners: bool = False,
    ignore_index: int = IGNORE,
) -> Tensor:
    """Return the log-probability of the true class of every pixel, (N, H, W); 0 where there is no label.

    Arguments and errors are those of `upsampled_cross_entropy`.
    """
    check_labels(logits, labels, canvas, ignore_index)
    size = size_of(labels)
    if are_small(logits, canvas or size):
        return small_log_likelihood(
            log_probabilities(logits, size, canvas or size, align_corners), labels, ignore_index
        )
    lattice = Lattice.of(logits, size, canvas=canvas, align_corners=align_corners)
    return _LogLikelihood.apply(logits, labels, lattice, ignore_index)


def upsampled_overlap(
    logits: Tensor,
    labels: Tensor,
    *,
    canvas: tuple[int, int] | None = None,
    align_corners: bool = False,
    ignore_index: int = IGNORE,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return per class sums over the labelled pixels of the batch, (K,) each.

    Returns:
        intersection: sum of the class's probability over the pixels that have it; predicted: that sum over all labelled
        pixels; labelled: number of pixels that have the class (no gradient).

    Arguments and errors are those of `upsampled_cross_entropy`.
    """
    check_labels(logits, labels, canvas, ignore_index)
    size = size_of(labels)
    if are_small(logits, canvas or size):
        log_p = log_probabilities(logits, size, canvas or size, align_corners)
        intersection, predicted = small_overlap(log_p, labels, ignore_index)
    else:
        lattice = Lattice.of(logits, size, canvas=canvas, align_corners=align_corners)
        intersection, predicted = _Overlap.apply(logits, labels, lattice, ignore_index)
    counts = count_labels(labels, logits.shape[1], ignore_index)
    return intersection, predicted, counts.to(predicted.dtype)


class _Targets:
    """Labels of a chunk, by slot.

    index: (Sy, Sx, n, 1, Gy, Gx) int64, 0 where there is no label; labelled: the same shape, 1.0 or 0.0 (also for
    fillers).
    """

    def __init__(self, chunk: Chunk, labels: Tensor, ignore_index: int, dtype: torch.dtype):
        labels = chunk.read(labels).unsqueeze(3)
        labelled = labels != ignore_index
        fillers = chunk.fillers()
        if fillers is not None:
            labelled.masked_fill_(fillers.unsqueeze(3), False)
        self.index = (labels * labelled).long()
        self.labelled = labelled.to(dtype)


class _CrossEntropy(torch.autograd.Function):
    """Loss and gradient in one walk. The gradient is kept without the division by the total weight."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        lattice: Lattice,
        weight: Tensor | None,
        smoothing: float,
        ignore_index: int,
        pixel_weight: Tensor | None,
    ) -> Tensor:
        dtype, needs_gradient = lattice.rows.weight.dtype, ctx.needs_input_grad[0]
        if logits.shape[1] == 2 and logits.device.type == "cpu":  # elsewhere gather looks at the labels
            with torch.autocast(logits.device.type, enabled=False):
                loss, total, gradient = walk_two_classes(
                    logits,
                    labels,
                    lattice,
                    weight=weight,
                    smoothing=smoothing,
                    ignore_index=ignore_index,
                    pixel_weight=pixel_weight,
                    needs_gradient=needs_gradient,
                )
            return _mean(ctx, logits, loss, total, gradient)
        terms = _Terms(lattice, labels, weight, smoothing, ignore_index, pixel_weight, logits.shape[1], dtype)
        with torch.autocast(logits.device.type, enabled=False):
            loss, total, gradient, smallest = _walk_cross_entropy(logits, terms, needs_gradient, level=True)
            if not smallest > SMALLEST_TOTAL:
                loss, total, gradient, _ = _walk_cross_entropy(logits, terms, needs_gradient, level=False)
        return _mean(ctx, logits, loss, total, gradient)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (scaled(gradient, upstream), *[None] * 6)


def _mean(ctx: Any, logits: Tensor, loss: Tensor, total: Tensor, gradient: Tensor | None) -> Tensor:
    """Keep the gradient of the sum of losses, divided as the loss is, for the way back, and return their mean."""
    divisor = total.where(total > 0, 1)
    if gradient is not None:
        ctx.save_for_backward(gradient.div_(divisor).to(logits.dtype))
    return (loss / divisor).to(torch.promote_types(logits.dtype, torch.float32))


class _Terms:
    """Everything a slot of the cross-entropy needs besides the logits."""

    def __init__(
        self,
        lattice: Lattice,
        labels: Tensor,
        weight: Tensor | None,
        smoothing: float,
        ignore_index: int,
        pixel_weight: Tensor | None,
        classes: int,
        dtype: torch.dtype,
    ):
        self.lattice = lattice
        self.labels = labels
        self.ignore_index = ignore_index
        self.smoothing = smoothing
        self.dtype = dtype
        self.class_weight = None if weight is None else weight.to(labels.device, dtype)
        self.pixel_weight = None if pixel_weight is None else pixel_weight.to(dtype)
        # What each class gets of the smoothed target: (K, 1, 1), times the pixel's own weight.
        spread = (
            torch.ones(classes, dtype=dtype, device=labels.device) if self.class_weight is None else self.class_weight
        )
        self.spread = (spread * (smoothing / classes)).view(-1, 1, 1)

    def pixels(self, chunk: Chunk, targets: _Targets) -> tuple[Tensor, Tensor]:
        """Return (Sy, Sx, n, 1, Gy, Gx): each pixel's weight without and with that of its class; 0 without label."""
        own = targets.labelled
        if self.pixel_weight is not None:
            own = own * chunk.read(self.pixel_weight).unsqueeze(3)
        return own, own if self.class_weight is None else own * self.class_weight[targets.index]


def _walk_cross_entropy(
    logits: Tensor, terms: _Terms, needs_gradient: bool, *, level: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Return sum of losses, sum of weights (float64 scalars), gradient of the former, smallest denominator.

    level: values are logits minus an interpolation of each sample's largest one, computed at low resolution, instead of
    minus each pixel's largest one. Cheaper by two passes, exact while the softmax denominators do not underflow.
    """
    loss = torch.zeros((), dtype=torch.float64, device=logits.device)
    total, smallest = torch.zeros_like(loss), torch.ones_like(loss)
    gradient = terms.lattice.new_gradient() if needs_gradient else None
    for chunk in terms.lattice.chunks():
        targets = _Targets(chunk, terms.labels, terms.ignore_index, terms.dtype)
        own, weighted = terms.pixels(chunk, targets)
        sharp = weighted * (1 - terms.smoothing) if terms.smoothing else weighted
        scale = sharp + own * terms.spread.sum() if terms.smoothing else sharp
        true, denominator = torch.empty_like(own), torch.empty_like(own)
        index, own_at, scale_at, minus_at = map(by_slot, (targets.index, own, scale, -sharp))
        true_at, denominator_at = by_slot(true), by_slot(denominator)
        walk = chunk.values(logits, level=level) if gradient is None else chunk.backward(logits, gradient, level=level)
        for (r, c), values in walk:
            if not level:
                values.sub_(values.amax(1, keepdim=True))
            torch.gather(values, 1, index[r][c], out=true_at[r][c])
            if terms.smoothing:
                loss -= LN_2 * (own_at[r][c] * (values * terms.spread).sum(1, keepdim=True)).sum()
            torch.sum(values.exp2_(), 1, keepdim=True, out=denominator_at[r][c])
            if gradient is not None:
                values.mul_(scale_at[r][c] / denominator_at[r][c])
                values.scatter_add_(1, index[r][c], minus_at[r][c])
                if terms.smoothing:
                    values.addcmul_(own_at[r][c], terms.spread, value=-1)
        smallest = torch.minimum(smallest, denominator.amin())
        loss += (scale * denominator.log_()).sub_(sharp * true, alpha=LN_2).sum()
        total += weighted.sum()
    return loss, total, gradient, smallest


def _walk_log_likelihood(
    logits: Tensor, labels: Tensor, lattice: Lattice, ignore_index: int, *, level: bool
) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities (N, H, W) and the smallest softmax denominator; level: see the walk above."""
    result = lattice.new_map(lattice.rows.weight.dtype)
    smallest = torch.ones((), dtype=result.dtype, device=logits.device)
    for chunk in lattice.chunks():
        targets = _Targets(chunk, labels, ignore_index, result.dtype)
        true, denominator = torch.empty_like(targets.labelled), torch.empty_like(targets.labelled)
        index, true_at, denominator_at = map(by_slot, (targets.index, true, denominator))
        for (r, c), values in chunk.values(logits, level=level):
            if not level:
                values.sub_(values.amax(1, keepdim=True))
            torch.gather(values, 1, index[r][c], out=true_at[r][c])
            torch.sum(values.exp2_(), 1, keepdim=True, out=denominator_at[r][c])
        smallest = torch.minimum(smallest, denominator.amin())
        chunk.write(result, true.mul_(LN_2).sub_(denominator.log_()).mul_(targets.labelled).squeeze(3))
    return result, smallest


class _LogLikelihood(torch.autograd.Function):
    """Log-probability of the true class; the second pass makes the probabilities again."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, lattice: Lattice, ignore_index: int) -> Tensor:
        ctx.save_for_backward(logits, labels)
        ctx.lattice, ctx.ignore_index = lattice, ignore_index
        with torch.autocast(logits.device.type, enabled=False):
            result, smallest = _walk_log_likelihood(logits, labels, lattice, ignore_index, level=True)
            if not smallest > SMALLEST_TOTAL:
                result, _ = _walk_log_likelihood(logits, labels, lattice, ignore_index, level=False)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        logits, labels = ctx.saved_tensors
        lattice = ctx.lattice
        gradient = lattice.new_gradient()
        with torch.autocast(logits.device.type, enabled=False):
            for chunk in lattice.chunks():
                targets = _Targets(chunk, labels, ctx.ignore_index, gradient.dtype)
                pixel = chunk.read(upstream).unsqueeze(3) * targets.labelled
                for slot, values in chunk.backward(logits, gradient, level=True):
                    to_softmax(values, -pixel[slot])
                    values.scatter_add_(1, targets.index[slot], pixel[slot])
        return gradient.to(logits.dtype), None, None, None


class _Overlap(torch.autograd.Function):
    """Per class sums of probabilities, over the pixels of the class and over all labelled ones."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, lattice: Lattice, ignore_index: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(logits, labels)
        ctx.lattice, ctx.ignore_index = lattice, ignore_index
        intersection = torch.zeros(logits.shape[1], dtype=torch.float64, device=logits.device)
        predicted = torch.zeros_like(intersection)
        with torch.autocast(logits.device.type, enabled=False):
            for chunk in lattice.chunks():
                targets = _Targets(chunk, labels, ignore_index, lattice.rows.weight.dtype)
                true = torch.empty_like(targets.labelled)
                for slot, values in chunk.values(logits, level=True):
                    to_softmax(values, targets.labelled[slot])
                    predicted += values.sum((0, 2, 3))
                    torch.gather(values, 1, targets.index[slot], out=true[slot])
                intersection.index_add_(0, targets.index.flatten(), true.flatten().double())
        dtype = lattice.rows.weight.dtype
        return intersection.to(dtype), predicted.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_intersection: Tensor, to_predicted: Tensor) -> tuple[Tensor | None, ...]:
        logits, labels = ctx.saved_tensors
        lattice = ctx.lattice
        gradient = lattice.new_gradient()
        with torch.autocast(logits.device.type, enabled=False):
            for chunk in lattice.chunks():
                targets = _Targets(chunk, labels, ctx.ignore_index, gradient.dtype)
                bonus = to_intersection[targets.index]
                for slot, values in chunk.backward(logits, gradient, level=True):
                    to_softmax(values, targets.labelled[slot])
                    # d/dv_k = p_k (q_k - sum_j p_j q_j) with q_k = to_predicted_k + [k is true] to_intersection_k
                    gain = values.gather(1, targets.index[slot]) * bonus[slot]
                    mean = torch.einsum("nkyx,k->nyx", values, to_predicted).unsqueeze(1) + gain
                    values.mul_(to_predicted.view(-1, 1, 1) - mean)
                    values.scatter_add_(1, targets.index[slot], gain)
        return gradient.to(logits.dtype), None, None, None


def to_softmax(values: Tensor, factor: Tensor) -> None:
    """Turn values (n, K, Gy, Gx) into probabilities times factor (n, 1, Gy, Gx), in place."""
    values.sub_(values.amax(1, keepdim=True)).exp2_()
    values.mul_(factor / values.sum(1, keepdim=True))


def scaled(gradient: Tensor, upstream: Tensor) -> Tensor:
    """Return gradient times a scalar; itself for the usual factor 1 on the CPU, where looking at it costs no wait."""
    return gradient if upstream.device.type == "cpu" and float(upstream) == 1.0 else gradient * upstream
