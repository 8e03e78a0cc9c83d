"""Sliding windows: predict a large picture piece by piece and put the logits together.

Overlapping windows are averaged at full size, as the published models do. The class map needs no full-size sum: the
windows stay at the network's stride, full-size rows are summed a band at a time, and as soon as no later window
touches a row, its argmax is taken. Dividing by the number of windows cannot change an argmax and is left out.

Letters: N pictures, K classes, (H, W) picture, (h, w) logits of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from segatlas.errors import UsageError
from segatlas.ops.raising import raise_rows
from segatlas.ops.running_best import best_class
from segatlas.structures import SemanticLogits

Box = tuple[int, int, int, int]
"""(y0, x0, y1, x1) in pixels, y1 and x1 excluded."""

Forward = Callable[[Tensor], SemanticLogits]

BAND_BYTES = 4 << 20
"""Size of the band of full-size logits that is summed at once."""


def window_boxes(size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]) -> list[Box]:
    """Return windows that cover a picture, row by row.

    Windows start every `stride` pixels; the last one of a row or column is moved back inside. All have the size of
    the crop, or of the picture where that is smaller.

    Raises:
        UsageError: a size, crop or stride below 1, or a stride larger than the crop (pixels would be left out).
    """
    if min(*size, *crop, *stride) < 1:
        raise UsageError(f"window sizes must be positive: size {size}, crop {crop}, stride {stride}")
    if stride[0] > crop[0] or stride[1] > crop[1]:
        raise UsageError(f"stride {stride} is larger than crop {crop}: pixels between windows would be left out")
    tops, lefts = (_starts(size[i], crop[i], stride[i]) for i in range(2))
    height, width = min(crop[0], size[0]), min(crop[1], size[1])
    return [(top, left, top + height, left + width) for top in tops for left in lefts]


@torch.no_grad()
def slide(forward: Forward, image: Tensor, crop: tuple[int, int], stride: tuple[int, int], *, batch: int = 1) -> Tensor:
    """Return the class map of a picture predicted by windows.

    Args:
        forward: network; takes (n, C, h', w') windows.
        image: (N, C, H, W) normalised.
        crop: window (rows, columns).
        stride: step between windows (rows, columns).
        batch: windows a call of forward.

    Returns:
        (N, H, W) uint8 for K <= 255, else int32. Beyond picture and result, memory holds the low-resolution logits of
        the windows that share rows, and one band.

    Raises:
        UsageError: sizes do not fit (see `window_boxes`).
    """
    size = image.shape[-2], image.shape[-1]
    result: Tensor | None = None
    for start, stop, windows in _finished_rows(forward, image, crop, stride, batch):
        classes = windows[0].output.logits.shape[1]
        if result is None:
            dtype = torch.uint8 if classes <= 255 else torch.int32
            result = torch.empty((len(image), *size), dtype=dtype, device=image.device)
        step = max(1, BAND_BYTES // (len(image) * classes * size[1] * 4))
        for first in range(start, stop, step):
            last = min(first + step, stop)
            total = _sum_rows(windows, first, last, size[1])
            for target, planes in zip(result, total.flatten(2), strict=True):
                target[first:last] = best_class(planes, result.dtype).view(last - first, -1)
    assert result is not None
    return result


@torch.no_grad()
def slide_scores(
    forward: Forward, image: Tensor, crop: tuple[int, int], stride: tuple[int, int], *, batch: int = 1
) -> Tensor:
    """Return the logits (N, K, H, W) of a picture, mean over the windows that cover each pixel.

    The slow path, for inspection and for a resize after the windows; arguments and errors as in `slide`.
    """
    size = image.shape[-2], image.shape[-1]
    boxes = window_boxes(size, crop, stride)
    total: Tensor | None = None
    for start, stop, windows in _finished_rows(forward, image, crop, stride, batch):
        if total is None:
            logits = windows[0].output.logits
            total = logits.new_empty((len(image), logits.shape[1], *size), dtype=_float(logits))
        total[:, :, start:stop] = _sum_rows(windows, start, stop, size[1])
    assert total is not None
    count = torch.zeros(size, dtype=total.dtype, device=total.device)
    for top, left, bottom, right in boxes:
        count[top:bottom, left:right] += 1
    return total.div_(count)


@dataclass(frozen=True)
class _Window:
    box: Box
    output: SemanticLogits


def _starts(size: int, crop: int, stride: int) -> list[int]:
    count = (max(size - crop, 0) + stride - 1) // stride + 1
    return [max(min(i * stride, size - crop), 0) for i in range(count)]


def _finished_rows(
    forward: Forward, image: Tensor, crop: tuple[int, int], stride: tuple[int, int], batch: int
) -> Iterator[tuple[int, int, list[_Window]]]:
    """Yield (first row, end row, windows over them) from top to bottom, as soon as no later window touches the rows."""
    if batch < 1:
        raise UsageError(f"batch must be at least 1, got {batch}")
    boxes = window_boxes((image.shape[-2], image.shape[-1]), crop, stride)
    tops = sorted({box[0] for box in boxes})
    active: list[_Window] = []
    for top, following in zip(tops, [*tops[1:], image.shape[-2]], strict=True):
        active = [window for window in active if window.box[2] > top]
        row = [box for box in boxes if box[0] == top]
        for start in range(0, len(row), batch):
            active += _predict(forward, image, row[start : start + batch])
        # Older windows may end before the next row of windows begins: there the set of windows changes.
        ends = sorted({window.box[2] for window in active if top < window.box[2] < following} | {following})
        for first, last in zip([top, *ends], ends, strict=False):
            yield first, last, [window for window in active if window.box[2] >= last]


def _predict(forward: Forward, image: Tensor, boxes: list[Box]) -> list[_Window]:
    pieces = [image[..., top:bottom, left:right] for top, left, bottom, right in boxes]
    output = forward(torch.cat(pieces) if len(pieces) > 1 else pieces[0])
    parts = output.logits.split(len(image))
    return [_Window(box, output._replace(logits=part, aux={})) for box, part in zip(boxes, parts, strict=True)]


def _sum_rows(windows: list[_Window], first: int, last: int, width: int) -> Tensor:
    """Return the sum (N, K, last - first, width) of the windows' raised logits; every window covers all the rows."""
    logits = windows[0].output.logits
    total = logits.new_zeros((len(logits), logits.shape[1], last - first, width), dtype=_float(logits))
    for window in windows:
        top, left, bottom, right = window.box
        total[..., left:right] += raise_rows(
            window.output.logits,
            (bottom - top, right - left),
            first - top,
            last - top,
            canvas=window.output.canvas,
            align_corners=window.output.resample.align_corners,
            mode=window.output.resample.mode,
        )
    return total


def _float(logits: Tensor) -> torch.dtype:
    return torch.promote_types(logits.dtype, torch.float32)
