"""Low-resolution logits -> class map, without building the full-size logits.

Bilinear values are mixtures of four corner samples with weights that sum to one. Where the four corners of a cell
have the same best class, every pixel between them has it too: such cells are only filled. The few others are
interpolated, a block of cells and one class at a time, keeping the best class so far. The result equals interpolating
everything and taking the argmax, up to ties within rounding. Nothing of size K x H x W exists at any moment.

Letters: N batch, K classes, (h, w) logits, (H, W) result, P = h * w positions, G cells, S slots of a run
(`ops.sampling`).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from segatlas.errors import UsageError
from segatlas.ops.lattice import Lattice
from segatlas.ops.running_best import ELEMENTS, RunningBest, best_class
from segatlas.ops.sampling import Runs
from segatlas.ops.steps import step_elements

CHUNK_CELLS = 1 << 14
"""Cells handled at once: what is noted of each (whether its corners agree, and where it is) stays small beside the
result."""

COPY_BYTES = 1 << 20
COPY_SAMPLES = 1 << 12
"""Logits that must be copied first (half precision, channels-last) are copied by about so many bytes, but at least so
many samples, as every operation is on the samples of one class."""


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

    The logits are upsampled to the canvas, cut to the unpadded `crop` (top left part of the canvas), and that is
    resized to `size`. The last two steps are one affine map together with the first: one interpolation, not two.

    Args:
        logits: (N, K, h, w) float; half precision is computed in float32.
        size: (H, W) of the result: the original image's size.
        canvas: (H', W') pixels that the logits cover; default `size`.
        align_corners: as in `torch.nn.functional.interpolate`.
        crop: (rows, columns) of the canvas that are image, not padding; default `size` where it fits on the canvas,
            else the whole canvas. Give it when the image was resized before the network.
        mode: "bilinear" or "nearest".

    Returns:
        (N, H, W) uint8 for K <= 255, else int32; the first class on ties.

    Raises:
        UsageError: logits are not four-dimensional floats, or the sizes do not fit together.
    """
    _check(logits)
    lattice = Lattice.of(logits, size, canvas=canvas, align_corners=align_corners, crop=crop, mode=mode)
    dtype = torch.uint8 if logits.shape[1] <= 255 else torch.int32
    if logits.device.type != "cpu":
        return _dense(logits, lattice, dtype)
    result = torch.empty((len(logits), *size), dtype=dtype)
    for image, target in zip(logits, result, strict=True):
        for rows in _parts(lattice.rows, _copied_runs(image)):
            fill_lazily(image, rows, lattice.columns, target)
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
    for chunk in lattice.chunks():
        probability = chunk.new(logits, torch.float32)
        for slot, values in chunk.values(logits):
            values.sub_(values.amax(1, keepdim=True))
            probability[slot] = values.exp2_().sum(1).reciprocal_()
        chunk.write(confidence, probability)
    return best, confidence


def _check(logits: Tensor) -> None:
    if logits.ndim != 4 or not logits.is_floating_point():
        raise UsageError(f"expected (N, K, h, w) float logits, got {tuple(logits.shape)} {logits.dtype}")


def _dense(logits: Tensor, lattice: Lattice, dtype: torch.dtype) -> Tensor:
    """Return the class map by interpolating everything, in chunks: the form for devices that dislike scattered work."""
    result = lattice.new_map(dtype)
    for chunk in lattice.chunks():
        best = chunk.new(logits, dtype)
        for slot, values in chunk.values(logits):
            best[slot] = values.argmax(1)
        chunk.write(result, best)
    return result


def _copied_runs(image: Tensor) -> int | None:
    """Return how many runs of rows to copy at once; None where the planes can be read in place."""
    classes, _, width = image.shape
    if image.dtype in (torch.float32, torch.float64) and image[0].is_contiguous():
        return None
    return max(2, copied_samples(classes) // width)


def copied_samples(classes: int) -> int:
    """Return how many samples (of all classes) to copy at once."""
    return max(COPY_SAMPLES, COPY_BYTES // (4 * classes))


def _parts(rows: Runs, step: int | None) -> Iterator[Runs]:
    """Cut an axis into parts of `step` runs; None: one part."""
    step = len(rows) if step is None else step
    for start in range(0, len(rows), step):
        yield _part(rows, start, start + step)


def _part(rows: Runs, start: int, stop: int) -> Runs:
    """Return the runs start..stop of an axis."""
    if start == 0 and stop >= len(rows):
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


def fill_lazily(image: Tensor, rows: Runs, columns: Runs, target: Tensor) -> None:
    """Fill the rows of target (H, W) that belong to the given runs, from image (K, h, w)."""
    lowest, highest = int(rows.first.min()), int(rows.second.max())
    block = image[:, lowest : highest + 1].to(torch.promote_types(image.dtype, torch.float32))
    block = block if block[0].is_contiguous() else block.contiguous()
    width = block.shape[2]
    planes = block.view(len(block), -1)
    best = best_class(planes, target.dtype).view(-1, width)

    for part in _parts(rows, max(1, CHUNK_CELLS // len(columns))):
        _finish(planes, best, part, part.first - lowest, part.second - lowest, columns, target)


def _finish(
    planes: Tensor, best: Tensor, rows: Runs, top: Tensor, bottom: Tensor, columns: Runs, target: Tensor
) -> None:
    """Fill the rows of target (H, W) that belong to the given runs.

    Args:
        planes: (K, P) logits of a block of samples.
        best: (h, w) best class of each of these samples.
        rows: runs of rows.
        top: (G,) row of the block of each run's first sample.
        bottom: (G,) likewise of the second one.
        columns: runs of columns.
        target: class map.
    """
    width = best.shape[1]
    upper, lower = best[top], best[bottom]
    corner = upper[:, columns.first]  # (Gy, Gx)
    mixed = corner != upper[:, columns.second]
    mixed |= corner != lower[:, columns.first]
    mixed |= corner != lower[:, columns.second]

    _fill(corner, rows, columns, target)
    row, column = mixed.nonzero(as_tuple=True)
    flat = target.view(-1)
    step = max(1, step_elements(ELEMENTS) // (2 * rows.slots * columns.slots))  # each pixel has its place noted, too
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
    running = RunningBest(value.shape, value.dtype)
    for k in range(len(planes)):
        torch.index_select(planes[k], 0, index, out=sample.view(-1))
        torch.sub(far, near, out=step)
        torch.addcmul(near, step, right, out=edge)
        torch.sub(edge[1], edge[0], out=drop)
        torch.addcmul(edge[0], drop, down, out=value)
        running.offer(value, k)
    return running.winner
