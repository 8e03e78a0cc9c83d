"""An upsampling cut into chunks and slots: small dense pieces of the full-size values, and their adjoint.

The output pixels are grouped in runs on both axes (`ops.sampling`). A *chunk* is some images and some runs of rows.
For slot (r, c) of a chunk, the values of the r-th row and c-th column of all its runs are one dense (n, K, Gy, Gx)
array, made by two weighted sums of neighbouring samples. Losses reduce such an array at once and hand its gradient
back; the sums over slots are the exact adjoint of the upsampling. Every pixel belongs to exactly one slot of one chunk.

Slots past the end of a short run are fillers: they repeat the run's last pixel, and its value. Whoever sums over slots
leaves them out (`Chunk.fillers`).

Letters: N batch, K classes, (h, w) logits, (H, W) pixels, Gy Gx runs, Sy Sx slots of a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor

from segatlas.ops.sampling import Runs, make_axis, make_runs
from segatlas.ops.steps import step_elements

LOG2_E, LN_2 = math.log2(math.e), math.log(2)
"""Values are in powers of two; losses are not."""

CPU_ELEMENTS = 1 << 16
"""Values of one slot on the CPU with one thread: 256 KB each for it and a dozen companions. Twice that is a quarter
quicker, but the companions then cost more than a twentieth of the full-size logits of 19 classes."""

GPU_ELEMENTS = 1 << 26
"""Values of one slot on other devices: large enough that launches do not count."""


class Lattice:
    """The upsampling of (N, K, h, w) logits to (H, W) pixels, ready to be walked chunk by chunk.

    is_plain: the logits are at full size already, so that values are logits and nothing lies between samples.
    """

    def __init__(self, shape: torch.Size, rows: Runs, columns: Runs, device: torch.device):
        self.shape = shape
        self.rows = rows
        self.columns = columns
        self.device = device
        self.has_fillers = bool(rows.filler.any() or columns.filler.any())
        self.is_plain = rows.are_samples and columns.are_samples

    @cached_property
    def column_pair(self) -> _Pair:
        """The two neighbouring samples of every run of columns, the same for all chunks."""
        return _Pair(self.columns, slice(None), dim=-1)

    @classmethod
    def of(
        cls,
        logits: Tensor,
        size: tuple[int, int],
        *,
        canvas: tuple[int, int] | None = None,
        align_corners: bool = False,
        crop: tuple[int, int] | None = None,
        mode: str = "bilinear",
    ) -> Lattice:
        """Build the lattice of logits (N, K, h, w) upsampled to size; arguments as in `ops.class_map`."""
        dtype = torch.promote_types(logits.dtype, torch.float32)
        rows, columns = (
            make_runs(
                make_axis(
                    logits.shape[2 + i],
                    size[i],
                    canvas=canvas and canvas[i],
                    crop=crop and crop[i],
                    align_corners=align_corners,
                    mode=mode,
                    dtype=dtype,
                    device=logits.device,
                )
            )
            for i in range(2)
        )
        return cls(logits.shape, rows, columns, logits.device)

    def chunks(self, held: int | None = None) -> Iterator[Chunk]:
        """Yield chunks for buffers of about as many values as suits the device.

        held: values that a buffer has between four samples; default K, those of one slot.
        """
        count, classes = self.shape[:2]
        elements = step_elements(CPU_ELEMENTS) if self.device.type == "cpu" else GPU_ELEMENTS
        runs = max(1, elements // ((held or classes) * len(self.columns)))
        images = max(1, runs // len(self.rows))
        if self.is_plain and images == 1:
            yield from self._plain_chunks(runs, elements)
            return
        for first in range(0, count, images):
            for start in range(0, len(self.rows), runs):
                last = min(start + runs, len(self.rows))
                yield Chunk(self, slice(first, first + images), slice(start, last))

    def _plain_chunks(self, runs: int, elements: int) -> Iterator[Chunk]:
        """Yield chunks of whole rows: `runs` of them in a slot, and slots for as many pixels as a slot has values."""
        height = len(self.rows)
        slots = max(1, elements // (runs * len(self.columns)))
        for first in range(self.shape[0]):
            start = 0
            while start < height:
                count = min(slots, max(1, (height - start) // runs))
                last = min(start + count * runs, height)
                yield Chunk(self, slice(first, first + 1), slice(start, last), count)
                start = last

    def new_map(self, dtype: torch.dtype) -> Tensor:
        """Return an empty full-size map (N, H, W)."""
        return torch.empty(self.shape[0], self.rows.size, self.columns.size, dtype=dtype, device=self.device)

    def new_gradient(self) -> Tensor:
        """Return (N, K, h, w) for a walk over all chunks to add its gradient to; empty where it writes each value."""
        whole = self.is_plain and self.shape[2:] == (self.rows.size, self.columns.size)
        return (torch.empty if whole else torch.zeros)(self.shape, dtype=self.rows.weight.dtype, device=self.device)


Slot = tuple[int, int]
"""(r, c): row and column within the runs, index into the first two dimensions of `Chunk.read`."""


def by_slot(values: Tensor) -> tuple[tuple[Tensor, ...], ...]:
    """Return the parts [r][c] of values (Sy, Sx, ...), as views that are all made at once."""
    return tuple(row.unbind() for row in values.unbind())


class Chunk:
    """Some images and some runs of rows of a lattice."""

    def __init__(self, lattice: Lattice, images: slice, runs: slice, row_slots: int = 1):
        """row_slots: slots that the rows of a plain lattice are dealt out to, as many of them to each."""
        self.lattice = lattice
        self.row_slots = row_slots
        self.images = images
        self.runs = runs
        if not lattice.is_plain:
            self._rows = _Pair(lattice.rows, runs, dim=-2)
            self._columns = lattice.column_pair

    def read(self, full: Tensor) -> Tensor:
        """Return the chunk's part of a full-size map (N, H, W), arranged by slot: (Sy, Sx, n, Gy, Gx)."""
        first, last = self._pixel_rows()
        return self.arrange(full[self.images, first:last])

    def marks(self, full: Tensor, mark: Callable[[Tensor], Tensor]) -> Tensor:
        """Return int8 (Sy, Sx, n, Gy, Gx), made by `mark` of a full-size map (N, H, W) before anything is arranged.

        Fillers get 0.
        """
        first, last = self._pixel_rows()
        found = mark(full[self.images, first:last])
        rows, columns = self.lattice.rows, self.lattice.columns
        if not self.lattice.is_plain and columns.regular:  # laid out so that each run has all its slots
            wide = found.new_zeros(*found.shape[:2], len(columns), columns.slots)
            short = columns.starts[1]
            wide[:, :, 0, :short] = found[..., :short]
            wide.flatten(2)[..., columns.slots : columns.slots + columns.size - short] = found[..., short:]
            index = rows.pixel[:, self.runs] - first
            wide = wide.index_select(1, index.flatten()).view(len(found), *index.shape, *wide.shape[2:])
            found = wide.permute(1, 4, 0, 2, 3).contiguous()
        else:
            found = self.arrange(found)
            found.mul_(columns.kept.reshape(columns.slots, 1, 1, -1))
        return found.mul_(rows.kept[:, self.runs].reshape(rows.slots, 1, 1, -1, 1))

    def arrange(self, part: Tensor) -> Tensor:
        """Return the pixels of the chunk's rows (n, ..., W), arranged by slot: (Sy, Sx, n, Gy, Gx)."""
        if self.lattice.is_plain:
            return part.unflatten(1, (self.row_slots, -1)).transpose(0, 1).unsqueeze(1)
        rows, columns = self.lattice.rows.pixel[:, self.runs], self.lattice.columns.pixel
        part = part.index_select(1, rows.flatten() - self._pixel_rows()[0]).index_select(2, columns.flatten())
        return part.view(-1, *rows.shape, *columns.shape).permute(1, 3, 0, 2, 4).contiguous()

    def _pixel_rows(self) -> tuple[int, int]:
        """Return the chunk's first row of pixels and the one after its last."""
        rows = self.lattice.rows
        return rows.starts[self.runs.start], rows.starts[self.runs.stop]

    def write(self, full: Tensor, values: Tensor) -> None:
        """Store values (Sy, Sx, n, Gy, Gx) in a full-size map (N, H, W)."""
        if self.lattice.is_plain:
            full[self.images, self.runs] = values[:, 0].transpose(0, 1).flatten(1, 2)
            return
        rows, columns = self.lattice.rows, self.lattice.columns
        part = values.permute(2, 3, 0, 4, 1).reshape(values.shape[2], -1, columns.pixel.numel())
        if self.lattice.has_fillers:
            part = part[:, ~rows.filler[:, self.runs].T.flatten()][..., ~columns.filler.T.flatten()]
        first = int(rows.pixel[0, self.runs.start])
        full[self.images, first : first + part.shape[1]] = part

    def fillers(self) -> Tensor | None:
        """Return which slots of the chunk only repeat a pixel, (Sy, Sx, 1, Gy, Gx) bool; None where there are none."""
        if not self.lattice.has_fillers:
            return None
        return self.lattice.rows.filler[:, None, None, self.runs, None] | self.lattice.columns.filler[:, None, None]

    def new(self, logits: Tensor, dtype: torch.dtype) -> Tensor:
        """Return an empty (Sy, Sx, n, Gy, Gx) array for one value a pixel."""
        rows, columns = self.lattice.rows.pixel[:, self.runs], self.lattice.columns.pixel
        count = len(logits[self.images])
        if self.lattice.is_plain:
            shape = (self.row_slots, 1, count, rows.shape[1] // self.row_slots, columns.shape[1])
            return logits.new_empty(shape, dtype=dtype)
        return logits.new_empty(len(rows), len(columns), count, rows.shape[1], columns.shape[1], dtype=dtype)

    def values(self, logits: Tensor, *, level: bool = False) -> Iterator[tuple[Slot, Tensor]]:
        """Yield ((r, c), values (n, K, Gy, Gx)) of every slot; values is one buffer, overwritten by the next slot.

        Values are upsampled logits times log2(e): their softmax is made with `exp2`, which torch computes three times
        faster than `exp` on the CPU and does not hand over to other threads for small arrays.

        level: subtract from every sample its largest logit first. Softmax does not see it, and all values are <= 0.
        """
        return self._walk(logits, level=level)

    def backward(self, logits: Tensor, gradient: Tensor, *, level: bool = False) -> Iterator[tuple[Slot, Tensor]]:
        """Like `values`; the caller overwrites them with the gradient to upsampled logits before the next slot.

        The adjoint is added to gradient (N, K, h, w).
        """
        if self.lattice.is_plain:
            for (slot, values), place in zip(self._walk(logits, level=level), self._slots_of(gradient), strict=True):
                yield slot, values
                place.copy_(values)
            return
        rows, columns = self.lattice.rows, self.lattice.columns
        across: tuple[Tensor, Tensor] | None = None  # sums over the slots of a row: (n, K, Gy, Gx)
        down: tuple[Tensor, Tensor] | None = None  # sums over the rows of a run: (n, K, Gy, w + 2)
        across_weights = _Weights(columns.weight)
        down_weights = _Weights(rows.weight[:, self.runs].unsqueeze(2))
        for (r, c), values in self._walk(logits, level=level):
            yield (r, c), values
            across = _accumulate(across, values, across_weights, c)
            if c == columns.slots - 1:
                down = _accumulate(down, self._row_of(across), down_weights, r)
        assert down is not None
        self._fold(down, gradient)

    def all_values(self, samples: Tensor) -> Tensor:
        """Return the upsampled samples in all slots at once, (Sy, Sx, n, K, Gy, Gx).

        samples: (n, K, rows, w), made of `self.samples`.
        """
        rows, columns = self.lattice.rows, self.lattice.columns
        if self.lattice.is_plain:
            return samples[None, None]
        top, bottom = self._rows.take(self._padded(samples))
        down = torch.addcmul(top, bottom - top, rows.weight[:, self.runs].reshape(rows.slots, 1, 1, -1, 1))
        left, right = self._columns.take(down)
        step, weight = (right - left).unsqueeze(1), columns.weight.reshape(columns.slots, 1, 1, 1, -1)
        return torch.addcmul(left.unsqueeze(1), step, weight)

    def all_backward(self, values: Tensor, gradient: Tensor) -> None:
        """Add the adjoint of `all_values` to gradient (N, K, h, w). values: (Sy, Sx, n, K, Gy, Gx)."""
        if self.lattice.is_plain:
            self._slots_of(gradient)[0].copy_(values[0, 0])
            return
        rows, columns = self.lattice.rows, self.lattice.columns
        right = (values * columns.weight.reshape(columns.slots, 1, 1, 1, -1)).sum(1)
        row = self._row_of((values.sum(1).sub_(right), right))
        below = (row * rows.weight[:, self.runs].reshape(rows.slots, 1, 1, -1, 1)).sum(0)
        self._fold((row.sum(0).sub_(below), below), gradient)

    def _walk(self, logits: Tensor, *, level: bool) -> Iterator[tuple[Slot, Tensor]]:
        if self.lattice.is_plain:
            for slot, part in enumerate(self._slots_of(logits)):
                values = part.to(self.lattice.rows.weight.dtype)
                # Less the largest one first, which is exact for all that are near it.
                values = values.sub(values.amax(1, keepdim=True)).mul_(LOG2_E) if level else values * LOG2_E
                yield (slot, 0), values
            return
        rows, columns = self.lattice.rows, self.lattice.columns
        top, bottom = self._rows.take(self._block(logits, level))  # (n, K, Gy, w + 2) each
        drop = bottom - top
        row = torch.empty_like(top, memory_format=torch.contiguous_format)
        left, right = self._columns.take(row)
        values = row.new_empty(*top.shape[:3], len(columns))
        step = torch.empty_like(values)
        weights = columns.weight.unbind()
        for r in range(rows.slots):
            torch.addcmul(top, drop, rows.weight[r, self.runs].unsqueeze(1), out=row)
            if not columns.consecutive:
                left, right = self._columns.take(row)
            torch.sub(right, left, out=step)
            for c, weight in enumerate(weights):
                torch.addcmul(left, step, weight, out=values)
                yield (r, c), values

    def _slots_of(self, samples: Tensor) -> tuple[Tensor, ...]:
        """Return the parts (n, K, Gy, W) of samples (N, K, h, w) in the slots of a plain lattice."""
        part = samples[self.images, :, self.runs, : len(self.lattice.columns)]
        return part.unflatten(2, (self.row_slots, -1)).unbind(2)

    def _block(self, logits: Tensor, level: bool) -> Tensor:
        """Return the samples under the chunk as values, (n, K, rows, w + 2), edges repeated."""
        inner = self.samples(logits) * LOG2_E
        if level:
            inner.sub_(inner.amax(1, keepdim=True))
        return self._padded(inner)

    def samples(self, logits: Tensor) -> Tensor:
        """Return the samples under the chunk in the dtype of the weights, without repeated edges."""
        if self.lattice.is_plain:
            part = logits[self.images, :, self.runs, : len(self.lattice.columns)]
        else:
            first, last = self._rows.first, self._rows.first + self._rows.extent - 1
            part = logits[self.images, :, max(first - 1, 0) : min(last, self.lattice.rows.samples)]
        return part.to(self.lattice.rows.weight.dtype)

    def _padded(self, inner: Tensor) -> Tensor:
        """Return samples under the chunk (n, K, rows, w) with edges repeated."""
        first, last = self._rows.first, self._rows.first + self._rows.extent - 1
        inner = torch.cat([inner[..., :1], inner, inner[..., -1:]], 3)
        above = [inner[:, :, :1]] if first == 0 else []
        below = [inner[:, :, -1:]] if last == self.lattice.rows.samples + 1 else []
        return torch.cat([*above, inner, *below], 2)

    def _row_of(self, across: tuple[Tensor, Tensor]) -> Tensor:
        """Return the gradient of rows (..., Gy, w + 2), given those of the samples left and right of each column."""
        row = across[0].new_zeros(*across[0].shape[:-1], self.lattice.columns.samples + 2)
        self._columns.give_back(row, *across)
        return row

    def _fold(self, down: tuple[Tensor, Tensor], gradient: Tensor) -> None:
        """Add the gradient of the samples above and below each row, (n, K, Gy, w + 2), to gradient (N, K, h, w)."""
        block = down[0].new_zeros(*down[0].shape[:2], self._rows.extent, down[0].shape[3])
        self._rows.give_back(block, *down)
        gradient = gradient[self.images]
        first, last = self._rows.first, self._rows.first + self._rows.extent - 1
        samples = self.lattice.rows.samples
        block[..., 1] += block[..., 0]
        block[..., -2] += block[..., -1]
        block = block[..., 1:-1]
        if first == 0:
            gradient[:, :, 0] += block[:, :, 0]
            block = block[:, :, 1:]
        if last == samples + 1:
            gradient[:, :, -1] += block[:, :, -1]
            block = block[:, :, :-1]
        start = max(first - 1, 0)
        gradient[:, :, start : start + block.shape[2]] += block


class _Pair:
    """The two neighbouring samples of every run along one dimension of a padded map, and the way back."""

    def __init__(self, runs: Runs, part: slice, dim: int):
        whole = part == slice(None)
        places = runs.places[part]
        self.dim = dim
        self.count = len(places)
        self.consecutive = runs.consecutive
        self.first = 0 if whole else places[0]
        self.extent = runs.samples + 2 if whole else places[-1] + 2 - self.first
        self.offset = places[0] - self.first
        if not self.consecutive:
            self.index = runs.padded[part] - self.first

    def take(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return first and second samples of all runs: views where the runs are consecutive."""
        if self.consecutive:
            return x.narrow(self.dim, self.offset, self.count), x.narrow(self.dim, self.offset + 1, self.count)
        return x.index_select(self.dim, self.index), x.index_select(self.dim, self.index + 1)

    def give_back(self, x: Tensor, first: Tensor, second: Tensor) -> None:
        """Add the gradients of first and second samples to x."""
        if self.consecutive:
            x.narrow(self.dim, self.offset, self.count).add_(first)
            x.narrow(self.dim, self.offset + 1, self.count).add_(second)
        else:
            x.index_add_(self.dim, self.index, first)
            x.index_add_(self.dim, self.index + 1, second)


class _Weights:
    """Weights of both neighbours by slot, made once a chunk: far for the second, near = 1 - far for the first one."""

    def __init__(self, weight: Tensor):
        self.far, self.near = weight.unbind(), (1 - weight).unbind()


def _accumulate(
    sums: tuple[Tensor, Tensor] | None, gradient: Tensor, weights: _Weights, slot: int
) -> tuple[Tensor, Tensor]:
    """Add a slot's gradient to the sums for the first and the second samples; slot 0 begins them."""
    if sums is None:
        sums = torch.empty_like(gradient), torch.empty_like(gradient)
    if slot == 0:
        torch.mul(gradient, weights.far[0], out=sums[1])
        torch.sub(gradient, sums[1], out=sums[0])
    else:
        sums[0].addcmul_(gradient, weights.near[slot])
        sums[1].addcmul_(gradient, weights.far[slot])
    return sums
