"""The class map of a sum of several upsamplings, such as overlapping windows make, without the full-size sum.

Where the upsamplings share one lattice (their samples lie at the same pixels, as with windows that begin at multiples
of the network's stride), the sum of the upsamplings is the upsampling of summed samples, and the map is made lazily as
`class_map` makes it. Elsewhere the upsamplings are added up, a few rows at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from segatlas.ops.class_map import copied_samples, fill_lazily
from segatlas.ops.running_best import best_class
from segatlas.ops.sampling import Axis, make_runs
from segatlas.ops.upsampling import resample

CHUNK_BYTES = 2 << 20
"""Size of a chunk of full-size values on the CPU."""

DEVICE_CHUNK_BYTES = 256 << 20
"""The same on other devices, where starting an operation costs more than memory."""


@dataclass(frozen=True, kw_only=True)
class Upsampling:
    """Logits (N, K, h, w) and where the pixels wanted, (rows, columns) of them, lie between their samples."""

    logits: Tensor
    rows: Axis
    columns: Axis


@torch.no_grad()
def summed_class_map(upsamplings: Sequence[Upsampling], out: Tensor, confidence: Tensor | None = None) -> None:
    """Write the best class of the sum to out (N, rows, columns), uint8 or int32; the first one on ties.

    The upsamplings have one batch size, one number of classes, and as many pixels as `out`. In confidence (N, rows,
    columns) float32, if given, the best class's softmax probability of the mean is written.
    """
    rows, columns = _joint([one.rows for one in upsamplings]), _joint([one.columns for one in upsamplings])
    if rows is None or columns is None or confidence is not None or upsamplings[0].logits.device.type != "cpu":
        _write_dense(upsamplings, out, confidence)
    else:
        _write_lazily(upsamplings, rows, columns, out)


def chunk_rows(logits: Tensor, width: int) -> int:
    """Return how many full-size rows of `width` pixels to handle at once for logits (N, K, ...)."""
    size = CHUNK_BYTES if logits.device.type == "cpu" else DEVICE_CHUNK_BYTES
    return max(1, size // (logits.shape[0] * logits.shape[1] * width * 4))


def _joint(axes: Sequence[Axis]) -> Axis | None:
    """Return one axis for the sum: over the first one's padded samples. None where the pixels lie differently.

    A pixel before the first sample has the same value on both its sides, so that any weight suits it.
    """
    padded, weight, known = axes[0].padded, axes[0].weight, ~axes[0].before
    for other in axes[1:]:
        shift = other.padded - padded
        both = known & ~other.before
        if bool((shift != shift[0]).any()) or not torch.equal(weight[both], other.weight[both]):
            return None
        weight = torch.where(known, weight, other.weight)
        known = known | ~other.before
    return Axis(samples=axes[0].samples + 2, low=padded, weight=weight, before=torch.zeros_like(known))


def _write_lazily(upsamplings: Sequence[Upsampling], rows: Axis, columns: Axis, out: Tensor) -> None:
    count, classes = upsamplings[0].logits.shape[:2]
    left, right = columns.reach()
    column_runs = make_runs(columns.over(left, right))
    top, bottom = rows.reach()
    samples = max(2, copied_samples(classes) // (right - left))
    step = max(1, samples * len(rows) // (bottom - top))
    for start in range(0, len(rows), step):
        part = rows.part(start, start + step)
        top, bottom = part.reach()
        row_runs = make_runs(part.over(top, bottom))
        target = torch.empty(len(part), len(columns), dtype=out.dtype)
        for n in range(count):
            block = torch.zeros(classes, bottom - top, right - left, dtype=rows.weight.dtype)
            for one in upsamplings:
                row, column = int(one.rows.padded[start]), int(one.columns.padded[0])
                block += _padded_block(one.logits[n], row, bottom - top, column, right - left)
            fill_lazily(block, row_runs, column_runs, target)
            out[n, start : start + step] = target


def _padded_block(planes: Tensor, top: int, height: int, left: int, width: int) -> Tensor:
    """Return samples (K, height, width) of planes (K, h, w) padded by one repeated sample on each side."""
    for dim, first, count in ((1, top, height), (2, left, width)):
        samples = planes.shape[dim]
        inner = planes.narrow(dim, max(first - 1, 0), min(first - 1 + count, samples) - max(first - 1, 0))
        before = [inner.narrow(dim, 0, 1)] if first == 0 else []
        after = [inner.narrow(dim, inner.shape[dim] - 1, 1)] if first - 1 + count > samples else []
        planes = torch.cat([*before, inner, *after], dim) if before or after else inner
    return planes


def _write_dense(upsamplings: Sequence[Upsampling], out: Tensor, confidence: Tensor | None) -> None:
    step = chunk_rows(upsamplings[0].logits, out.shape[2])
    for start in range(0, out.shape[1], step):
        total: Tensor | None = None
        for one in upsamplings:
            upsampled = resample(resample(one.logits, 2, one.rows.part(start, start + step)), 3, one.columns)
            total = upsampled if total is None else total.add_(upsampled)
        assert total is not None
        best, sure = labels_of(total.div_(len(upsamplings)), confidence=confidence is not None)
        out[:, start : start + step] = best
        if confidence is not None and sure is not None:
            confidence[:, start : start + step] = sure


def labels_of(logits: Tensor, *, confidence: bool = False) -> tuple[Tensor, Tensor | None]:
    """Return the best class of full-size logits (N, K, rows, W) and its softmax probability, on the processor."""
    best = best_of(logits)
    sure: Tensor | None = None
    if confidence:
        top = logits.gather(1, best.long().unsqueeze(1)).squeeze(1)
        sure = (top - logits.logsumexp(dim=1)).exp().cpu()
    return best.cpu(), sure


def best_of(values: Tensor) -> Tensor:
    """Return the best class of full-size values (N, K, rows, W): (N, rows, W) uint8, int32 above 255 classes."""
    kind = torch.uint8 if values.shape[1] <= 255 else torch.int32
    if values.device.type != "cpu":
        return values.argmax(1).to(kind)
    return torch.stack([best_class(one.flatten(1), kind).view(one.shape[1:]) for one in values])
