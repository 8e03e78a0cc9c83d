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

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.ops.lattice import Lattice
from segatlas.ops.running_best import RunningBest
from segatlas.ops.sampling import Runs, check_axis
from segatlas.ops.stored_logits import StoredLogits, are_interleaved, samples_of

CHUNK_CELLS = 3 << 16
"""Cells handled at once: what is noted of each (whether its corners agree, and where it is) stays small beside the
result."""

WHOLE_VALUES = 1 << 18
"""Values interpolated at once where a map is made smaller."""

COPY_BYTES = 1 << 20
COPY_SAMPLES = 1 << 12
"""Logits that must be copied first (half precision, cut-out views) are copied by about so many bytes, but at least so
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
    for i in range(2):
        check_axis(logits.shape[2 + i], size[i], canvas=canvas and canvas[i], crop=crop and crop[i], mode=mode)
    dtype = torch.uint8 if logits.shape[1] <= 255 else torch.int32
    if logits.shape[1] == 1:
        return logits.new_zeros((len(logits), *size), dtype=dtype)
    if _takes_all(logits, size) and mode == "bilinear" and (crop or canvas or size) == (canvas or size):
        return torch.stack([_best_of_all(image, size, align_corners, dtype) for image in logits.split(1)])
    lattice = Lattice.of(logits, size, canvas=canvas, align_corners=align_corners, crop=crop, mode=mode)
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


def _takes_all(logits: Tensor, size: tuple[int, int]) -> bool:
    """Tell whether the map has no more pixels than there are samples, so that interpolating everything is less work."""
    height, width = logits.shape[2:]
    exact = logits.dtype in (torch.float32, torch.float64) and logits.device.type == "cpu"
    return exact and (size[0] * size[1] < height * width or size == (height, width))


def _best_of_all(logits: Tensor, size: tuple[int, int], align_corners: bool, dtype: torch.dtype) -> Tensor:
    """Return the class map (H, W) of (1, K, h, w) logits by interpolating everything: no more than the logits are.

    Infinite logits may give NaN, which must not win.
    """
    if size == tuple(logits.shape[2:]):
        return samples_of(logits[0]).best(dtype).view(size)
    if are_interleaved(logits[0]):
        smaller = F.interpolate(logits, size, mode="bilinear", align_corners=align_corners)[0]
        if not bool(smaller.sum().isfinite()):
            smaller.nan_to_num_(-torch.inf, torch.inf, -torch.inf)
        return samples_of(smaller).best(dtype).view(size)
    running = RunningBest(torch.Size(size), logits.dtype)
    classes = max(1, WHOLE_VALUES // (size[0] * size[1]))
    for start in range(0, logits.shape[1], classes):
        planes = logits[:, start : start + classes]
        smaller = F.interpolate(planes, size, mode="bilinear", align_corners=align_corners)[0]
        for k, plane in enumerate(smaller.nan_to_num_(-torch.inf, torch.inf, -torch.inf), start):
            running.offer(plane, k)
    return running.winner.to(dtype)


def _copied_runs(image: Tensor) -> int | None:
    """Return how many runs of rows to copy at once; None where the logits can be read in place."""
    classes, _, width = image.shape
    if image.dtype in (torch.float32, torch.float64) and (image[0].is_contiguous() or are_interleaved(image)):
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
    samples = samples_of(block)
    best = samples.best(target.dtype).view(-1, block.shape[2])

    for part in _parts(rows, max(1, CHUNK_CELLS // len(columns))):
        _finish(samples, best, part, part.first - lowest, part.second - lowest, columns, target)


def _finish(
    samples: StoredLogits, best: Tensor, rows: Runs, top: Tensor, bottom: Tensor, columns: Runs, target: Tensor
) -> None:
    """Fill the rows of target (H, W) that belong to the given runs.

    Args:
        samples: logits of a block of samples.
        best: (h, w) best class of each of these samples.
        rows: runs of rows.
        top: (G,) row of the block of each run's first sample.
        bottom: (G,) likewise of the second one.
        columns: runs of columns.
        target: class map.
    """
    width = best.shape[1]
    corner, upper_right = _sides(best[top], columns)  # (Gy, Gx)
    lower_left, lower_right = _sides(best[bottom], columns)
    mixed = corner != upper_right
    mixed |= corner != lower_left
    mixed |= corner != lower_right

    _fill(corner, rows, columns, target)
    cells = torch.from_numpy(np.flatnonzero(mixed.numpy()))  # many times as quick as torch's
    flat, starts = target.view(-1), rows.pixel * target.shape[1]
    ends = torch.stack([top, bottom]) * width, torch.stack([columns.first, columns.second])
    step = samples.cells(rows.slots * columns.slots)
    for first in range(0, len(cells), step):
        some = cells[first : first + step]
        cell_row = some.div(len(columns), rounding_mode="floor")
        cell_column = some - cell_row * len(columns)
        left, right = ends[1].index_select(1, cell_column)
        above, below = ends[0].index_select(1, cell_row)
        corners = torch.stack([above + left, above + right, below + left, below + right])
        down, across = rows.weight.index_select(1, cell_row), columns.weight.index_select(1, cell_column)
        winner = samples.best_between(corners, down, across)
        pixel = starts.index_select(1, cell_row).unsqueeze(1) + columns.pixel.index_select(1, cell_column)
        flat.scatter_(0, pixel.view(-1), winner.view(-1).to(target.dtype))


def _sides(best: Tensor, columns: Runs) -> tuple[Tensor, Tensor]:
    """Return values (Gy, Gx) of (Gy, w) at each run's first and second sample: views where no run leaves one out."""
    if columns.consecutive and torch.equal(columns.second, columns.padded.clamp(max=columns.samples - 1)):
        padded = torch.cat([best[:, :1], best, best[:, -1:]], 1)
        start = int(columns.padded[0])
        return padded.narrow(1, start, len(columns)), padded.narrow(1, start + 1, len(columns))
    return best[:, columns.first], best[:, columns.second]


def _fill(corner: Tensor, rows: Runs, columns: Runs, target: Tensor) -> None:
    """Give all pixels of every cell the class of its first corner. corner: (Gy, Gx)."""
    lengths = (~columns.filler).sum(0)
    wide = torch.from_numpy(np.repeat(corner.numpy(), lengths.numpy(), axis=1))  # several times as quick as torch's
    heights = (~rows.filler).sum(0)
    first, last = int(rows.pixel[0, 0]), int(rows.pixel[-1, -1])
    owner = torch.repeat_interleave(torch.arange(len(rows)), heights)
    torch.index_select(wide, 0, owner, out=target[first : last + 1])
