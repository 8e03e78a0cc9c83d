"""Low-resolution logits -> class map, without building the full-size logits.

Bilinear values are mixtures of four corner samples with weights that sum to one. Where the four corners of a cell have the
same best class, every pixel between them has it too: such cells are only filled. The few others are interpolated, a block of
cells and one class at a time, keeping the best class so far. The result equals interpolating everything and taking the
argmax, up to ties within rounding. Nothing of size K x H x W exists at any moment.

Letters: N batch, K classes, (h, w) logits, (H, W) result, P = h * w positions, G cells, S slots of a run (`ops.sampling`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from segatlas.errors import UsageError
from segatlas.ops.lattice import Lattice
from segatlas.ops.sampling import Runs, make_axis, make_runs
from segatlas.ops.steps import step_elements

ELEMENTS = 65_536
"""Positions, or pixels of cells, handled at once with one thread: all buffers stay near the core."""

COPY_BYTES = 4 << 20
"""Size of a band of logits that must be copied first (half precision or channels-last)."""


@torch.no_grad()
def class_map(
    logits: Tensor,
    size: tuple[int, int],
    *,
    canvas: tuple[int, int] | None = None,
    align_corners: bool = False,
    crop: tuple[int, int] | None = None,
    mode: str = "bilinear",
) -> Tensor:
    """Return the best class of every pixel.

    The logits are raised to the canvas, cut to the unpadded `crop` (top left part of the canvas), and that is resized to
    `size`. The last two steps are one affine map together with the first: one interpolation, not two.

    Args:
        logits: (N, K, h, w) float; half precision is computed in float32.
        size: (H, W) of the result: the original picture's size.
        canvas: (H', W') pixels that the logits cover; default `size`.
        align_corners: as in `torch.nn.functional.interpolate`.
        crop: (rows, columns) of the canvas that are picture, not padding; default `size` where it fits on the canvas,
            else the whole canvas. Give it when the picture was resized before the network.
        mode: "bilinear" or "nearest".

    Returns:
        (N, H, W) uint8 for K <= 255, else int32; the first class on ties.

    Raises:
        UsageError: logits are not four-dimensional floats, or the sizes do not fit together.
    """
    _check(logits)
    count, classes, height, width = logits.shape
    dtype = torch.promote_types(logits.dtype, torch.float32)
    axes = [
        make_axis(
            samples,
            size[i],
            canvas=canvas and canvas[i],
            crop=crop and crop[i],
            align_corners=align_corners,
            mode=mode,
            dtype=dtype,
            device=logits.device,
        )
        for i, samples in enumerate((height, width))
    ]
    result = torch.empty((count, *size), dtype=torch.uint8 if classes <= 255 else torch.int32, device=logits.device)
    rows, columns = make_runs(axes[0]), make_runs(axes[1])
    if logits.device.type != "cpu":
        _dense(logits, rows, columns, result)
        return result
    for picture, target in zip(logits, result, strict=True):
        for start, stop in _bands(picture, rows):
            _lazy(picture, _part(rows, start, stop), columns, target)
    return result


@torch.no_grad()
def class_map_with_confidence(
    logits: Tensor,
    size: tuple[int, int],
    *,
    canvas: tuple[int, int] | None = None,
    align_corners: bool = False,
    crop: tuple[int, int] | None = None,
    mode: str = "bilinear",
) -> tuple[Tensor, Tensor]:
    """Return the best class of every pixel and its softmax probability, both (N, H, W); the second is float32, 0..1.

    Arguments and errors are those of `class_map`.
    """
    best = class_map(logits, size, canvas=canvas, align_corners=align_corners, crop=crop, mode=mode)
    lattice = Lattice.of(logits, size, canvas=canvas, align_corners=align_corners, crop=crop, mode=mode)
    confidence = lattice.new_map(torch.float32)
    for band in lattice.bands():
        share = band.new(logits, torch.float32)
        for slot, values in band.values(logits):
            values.sub_(values.amax(1, keepdim=True))
            share[slot] = values.exp2_().sum(1).reciprocal_()
        band.write(confidence, share)
    return best, lattice.trim(confidence)


def _check(logits: Tensor) -> None:
    if logits.ndim != 4 or not logits.is_floating_point():
        raise UsageError(f"expected (N, K, h, w) float logits, got {tuple(logits.shape)} {logits.dtype}")


def _dense(logits: Tensor, rows: Runs, columns: Runs, result: Tensor) -> None:
    """Fill result by interpolating everything, in bands: the form for devices that dislike scattered work."""
    lattice = Lattice(logits.shape, rows, columns, logits.device)
    padded = lattice.new_map(result.dtype)
    for band in lattice.bands():
        best = band.new(logits, result.dtype)
        for slot, values in band.values(logits):
            best[slot] = values.argmax(1)
        band.write(padded, best)
    result.copy_(lattice.trim(padded))


def _bands(picture: Tensor, rows: Runs) -> list[tuple[int, int]]:
    """Cut the runs of rows into bands: one where the planes can be read in place, else as many as copies need."""
    classes, _, width = picture.shape
    if picture.dtype in (torch.float32, torch.float64) and picture[0].is_contiguous():
        return [(0, len(rows))]
    step = max(2, COPY_BYTES // (classes * width * 4))
    return [(start, min(start + step, len(rows))) for start in range(0, len(rows), step)]


def _part(rows: Runs, start: int, stop: int) -> Runs:
    """Return the runs start..stop of an axis."""
    if start == 0 and stop == len(rows):
        return rows
    return Runs(
        samples=rows.samples,
        size=rows.size,
        first=rows.first[start:stop],
        second=rows.second[start:stop],
        padded=rows.padded[start:stop],
        weight=rows.weight[:, start:stop],
        pixel=rows.pixel[:, start:stop],
        filler=rows.filler[:, start:stop],
        consecutive=rows.consecutive,
    )


def _lazy(picture: Tensor, rows: Runs, columns: Runs, target: Tensor) -> None:
    """Fill the rows of target (H, W) that belong to the given runs, from picture (K, h, w)."""
    lowest, highest = int(rows.first.min()), int(rows.second.max())
    block = picture[:, lowest : highest + 1].to(torch.promote_types(picture.dtype, torch.float32))
    block = block if block[0].is_contiguous() else block.contiguous()
    planes, width = block.flatten(1), block.shape[2]
    best = _best(planes, target.dtype).view(-1, width)

    top, bottom = rows.first - lowest, rows.second - lowest
    upper, lower = best[top], best[bottom]
    corner = upper[:, columns.first]  # (Gy, Gx)
    mixed = corner != upper[:, columns.second]
    mixed |= corner != lower[:, columns.first]
    mixed |= corner != lower[:, columns.second]

    _fill(corner, rows, columns, target)
    row, column = mixed.nonzero(as_tuple=True)
    flat = target.view(-1)
    step = max(1, step_elements(ELEMENTS) // (rows.slots * columns.slots))
    for start in range(0, len(row), step):
        cell_row, cell_column = row[start : start + step], column[start : start + step]
        left, right = columns.first[cell_column], columns.second[cell_column]
        above, below = top[cell_row] * width, bottom[cell_row] * width
        corners = torch.stack([above + left, above + right, below + left, below + right])
        winner = _interpolated_best(planes, corners, rows.weight[:, cell_row], columns.weight[:, cell_column])
        pixel = (rows.pixel[:, cell_row] * target.shape[1]).unsqueeze(1) + columns.pixel[:, cell_column]
        flat[pixel] = winner.to(target.dtype)


def _fill(corner: Tensor, rows: Runs, columns: Runs, target: Tensor) -> None:
    """Give all pixels of every cell the class of its first corner. corner: (Gy, Gx)."""
    lengths = (~columns.filler).sum(0)
    wide = corner.repeat_interleave(lengths, 1, output_size=columns.size)
    heights = (~rows.filler).sum(0)
    first, last = int(rows.pixel[0, 0]), int(rows.pixel[-1, -1])
    owner = torch.repeat_interleave(torch.arange(len(rows)), heights)
    torch.index_select(wide, 0, owner, out=target[first : last + 1])


def _best(planes: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the best class of every position. planes: (K, P) -> (P,)."""
    result = torch.empty(planes.shape[1], dtype=dtype)
    step = step_elements(ELEMENTS)
    for start in range(0, planes.shape[1], step):
        part = planes[:, start : start + step]
        running = _RunningBest(part[0].shape, part.dtype)
        for k in range(len(part)):
            running.offer(part[k], k)
        result[start : start + step] = running.winner
    return result


def _interpolated_best(planes: Tensor, corners: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Return the best class of every pixel of n cells.

    Args:
        planes: (K, P) logits.
        corners: (4, n) positions of the corners: top left, top right, bottom left, bottom right.
        down: (Sy, n) weight of the bottom corners for each row of pixels.
        right: (Sx, n) weight of the right corners for each column of pixels.

    Returns:
        (Sy, Sx, n) float, class indices.
    """
    slots_y, slots_x, count = len(down), len(right), corners.shape[1]
    index, down = corners.view(-1), down.unsqueeze(1)
    sample = planes.new_empty(2, 2, count)
    step = planes.new_empty(2, 1, count)
    edge = planes.new_empty(2, slots_x, count)
    drop = planes.new_empty(slots_x, count)
    value = planes.new_empty(slots_y, slots_x, count)
    near, far = sample[:, 0:1], sample[:, 1:2]
    running = _RunningBest(value.shape, value.dtype)
    for k in range(len(planes)):
        torch.index_select(planes[k], 0, index, out=sample.view(-1))
        torch.sub(far, near, out=step)
        torch.addcmul(near, step, right, out=edge)
        torch.sub(edge[1], edge[0], out=drop)
        torch.addcmul(edge[0], drop, down, out=value)
        running.offer(value, k)
    return running.winner


class _RunningBest:
    """The best value so far and its class. Flags and classes are kept as floats: torch compares much faster into them."""

    def __init__(self, shape: torch.Size, dtype: torch.dtype):
        self.value = torch.empty(shape, dtype=dtype)
        self.winner = torch.zeros(shape, dtype=dtype)
        self.better = torch.empty(shape, dtype=dtype)

    def offer(self, value: Tensor, k: int) -> None:
        """Compare with the values of class k; classes must be offered in rising order."""
        if k == 0:
            self.value.copy_(value)
            return
        torch.gt(value, self.value, out=self.better)
        torch.maximum(value, self.value, out=self.value)
        torch.maximum(self.winner, self.better.mul_(k), out=self.winner)
