"""Large images by overlapping windows.

Every window's logits are upsampled to the window's size; a pixel's logits are the mean over the windows that cover it.
`slide` does this as it is said, and holds everything. Everything else keeps logits at the network's own stride, and
only while they are needed. Labels in the input's size are made region by region, as soon as the last window over a
region has run; of a window that is done, only the rows that the next row of windows overlaps are kept. `WindowRows`
gives logits at any size by rows, for resized results and test-time augmentation; it holds the rows of windows that
reach these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from segatlas.checkpoint.preprocessing import InferenceMode
from segatlas.errors import UsageError
from segatlas.inference.tta import UPRIGHT, View
from segatlas.ops import window_starts
from segatlas.ops.sampling import Axis, make_axis
from segatlas.ops.summed_map import Upsampling, chunk_rows, labels_of, summed_class_map
from segatlas.ops.upsampling import resample, upsample_rows
from segatlas.structures import Inputs, SemanticLogits, changed, image_of, joined

DEFAULT_OVERLAP = 1 / 3

BATCH_PIXELS = 1 << 18
"""Pixels of windows per pass on a processor: only windows below 512x512 share one; larger ones keep it busy alone."""

DEVICE_BATCH_PIXELS = 1 << 22
"""Pixels of windows per pass elsewhere: four windows of 1024x1024."""

Scorer = Callable[[Tensor | Inputs], Tensor]
Network = Callable[[Tensor | Inputs], SemanticLogits]


class Pixels(Protocol):
    """A normalised batch of which windows can be had; see `images.ImageBatch`."""

    size: tuple[int, int]

    def part(self, top: int, left: int, height: int, width: int) -> Tensor | Inputs:
        """Return a window of image and sources, (height, width)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of `crop` every `stride` pixels, (height, width)."""

    crop: tuple[int, int]
    stride: tuple[int, int]

    def __post_init__(self) -> None:
        """Refuse windows that would leave pixels uncovered."""
        for crop, stride in zip(self.crop, self.stride, strict=True):
            if not 1 <= stride <= crop:
                raise UsageError(
                    f"windows of {self.crop} every {self.stride} pixels: the step must be 1 up to the size"
                )


def make_windows(window: int | tuple[int, int], overlap: float = DEFAULT_OVERLAP) -> Windows:
    """Return windows of N x N or (h, w) pixels of which neighbours share `overlap` (0 up to, not including, 1).

    The step of windows of 64 pixels or more is the nearest multiple of 16, so that their logits lie at the same pixels:
    that makes overlaps cheap (`ops.summed_map`).

    Raises:
        UsageError: a side below 1, or an overlap out of range.
    """
    crop = (window, window) if isinstance(window, int) else (int(window[0]), int(window[1]))
    if min(crop) < 1:
        raise UsageError(f"window: got {window}, expected at least 1 pixel a side")
    if not 0 <= overlap < 1:
        raise UsageError(f"overlap: got {overlap}, expected 0 up to, but not including, 1")
    return Windows(crop=crop, stride=(_step(crop[0], overlap), _step(crop[1], overlap)))


def card_windows(mode: InferenceMode) -> Windows | None:
    """Return the windows that a card asks for, None for whole images."""
    if mode.mode == "whole" or mode.crop is None:
        return None
    return Windows(crop=mode.crop, stride=mode.stride) if mode.stride else make_windows(mode.crop)


def slide(inputs: Tensor | Inputs, windows: Windows, score: Scorer) -> Tensor:
    """Return the mean of the windows' logits at every pixel of the batch, the plain way.

    Args:
        inputs: image (N, C, H, W), and sources.
        windows: size and step; the last window of a row or column is moved back to end at the edge.
        score: maps a window (h, w) of them to logits (N, K, h, w).

    Returns:
        (N, K, H, W) float32.
    """
    height, width = image_of(inputs).shape[-2:]
    high, wide = min(windows.crop[0], height), min(windows.crop[1], width)
    hits = torch.zeros(height, width, device=image_of(inputs).device)
    total: Tensor | None = None
    for top in window_starts(height, windows.crop[0], windows.stride[0]):
        for left in window_starts(width, windows.crop[1], windows.stride[1]):
            area = (..., slice(top, top + high), slice(left, left + wide))
            logits = score(changed(inputs, partial(_part, area=area))).float()
            total = logits.new_zeros(*logits.shape[:2], height, width) if total is None else total
            total[area] += logits
            hits[area] += 1
    assert total is not None
    return total.div_(hits)


def _part(maps: Tensor, area: tuple[Any, ...]) -> Tensor:
    return maps[area]


def slide_class_map(
    inputs: Pixels,
    windows: Windows,
    network: Network,
    size: tuple[int, int],
    *,
    confidence: bool = False,
    batch: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return the class of every pixel by windows, never holding full-size logits.

    Args:
        inputs: the normalised batch.
        windows: as in `slide`.
        network: maps windows (h, w), M of them at once, to their logits at its own stride.
        size: (H, W) of the result; where it is not the inputs', the mean is upsampled once more, to it.
        confidence: also return the probability of the chosen class.
        batch: windows per pass of the network; default: see BATCH_PIXELS.

    Returns:
        (N, H, W) uint8 (int32 above 255 classes) and (N, H, W) float32 or None, on the processor.
    """
    if size == inputs.size:
        return _maps_by_regions(inputs, windows, network, confidence=confidence, batch=batch)
    parts = [
        labels_of(logits, confidence=confidence)
        for logits in WindowRows(inputs, windows, network, size, batch=batch).chunks()
    ]
    maps, sure = zip(*parts, strict=True)
    return torch.cat(maps, dim=1), torch.cat(sure, dim=1) if confidence else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """Network output for a part of the upright image, seen under a view's turns and flip.

    size: (height, width) pixels that the output is upsampled to, upright. covered: (h, w) pixels of the network's
    input, as the view saw it; the output's canvas may be larger. top, left: where the part begins.
    """

    output: SemanticLogits
    size: tuple[int, int]
    covered: tuple[int, int]
    view: View = UPRIGHT
    top: int = 0
    left: int = 0

    def rows(self, first: int, last: int) -> Tensor:
        """Return upsampled logits (N, K, last - first, width) of rows of the part, upright."""
        swapped, reversed_rows, reversed_columns = self.view.pose()
        logits, canvas, covered = self.output.logits, self.output.canvas, self.covered
        if swapped:
            logits = logits.transpose(-1, -2)
            canvas, covered = (canvas[1], canvas[0]), (covered[1], covered[0])
        if reversed_rows:
            first, last = self.size[0] - last, self.size[0] - first
        mode, align_corners = self.output.resample
        upsampled = upsample_rows(
            logits, self.size, first, last, canvas=canvas, crop=covered, align_corners=align_corners, mode=mode
        )
        return upsampled.flip([dim for dim, turned in ((-2, reversed_rows), (-1, reversed_columns)) if turned])

    def sample(self) -> Tensor:
        """Return logits as the network gave them: their shape tells classes and stride."""
        return self.output.logits

    def axes(self) -> tuple[Axis, Axis]:
        """Return where the part's rows and columns lie between the samples; of an upright view only."""
        mode, align_corners = self.output.resample
        rows, columns = (
            make_axis(
                self.output.logits.shape[2 + i],
                self.size[i],
                canvas=self.output.canvas[i],
                crop=self.covered[i],
                align_corners=align_corners,
                mode=mode,
                device=self.output.logits.device,
            )
            for i in range(2)
        )
        return rows, columns


class WindowRows:
    """Mean logits of overlapping windows, by rows from the top down; holds the logits of few rows of windows.

    size: (H, W) of the rows given out. The windows lie on `inputs`, as the view sees it.
    """

    def __init__(
        self,
        inputs: Pixels,
        windows: Windows,
        network: Network,
        size: tuple[int, int],
        *,
        view: View = UPRIGHT,
        batch: int | None = None,
    ):
        self.inputs = inputs
        self.network = network
        self.size = size
        self.view = view
        self.batch = batch
        self.tops, self.lefts, self.side = upright_grid(inputs.size, windows, view)
        self.tiles: list[Tile] = []  # those that reach the current rows, by row of windows, then from left to right
        self._coming = list(self.tops)

    def sample(self) -> Tensor:
        """Return logits of the first window as the network gave them."""
        self.advance(0, 1)
        return self.tiles[0].output.logits

    def chunks(self) -> Iterator[Tensor]:
        """Yield all rows, (N, K, rows, W) at a time, few enough to be small."""
        step = chunk_rows(self.sample(), self.size[1])
        for first in range(0, self.size[0], step):
            yield self.rows(first, min(first + step, self.size[0]))

    def rows(self, first: int, last: int) -> Tensor:
        """Return rows first..last - 1 at `size`, (N, K, last - first, W) float32; `first` never goes back."""
        if self.size == self.inputs.size:
            return self._mean(first, last)
        axis = make_axis(self.inputs.size[0], self.size[0]).part(first, last)
        top, bottom = axis.reach()
        mean = self._mean(top, bottom)
        upsampled = resample(mean, 2, axis.over(top, bottom).to(mean.device))
        return resample(upsampled, 3, make_axis(self.inputs.size[1], self.size[1], device=mean.device))

    def advance(self, first: int, last: int) -> None:
        """Forget windows above input row `first`, and run those that reach above row `last`."""
        self.tiles = [tile for tile in self.tiles if tile.top + self.side[0] > first]
        while self._coming and self._coming[0] < last:
            top = self._coming.pop(0)
            self.tiles += run_row(self.inputs, self.network, top, self.lefts, self.side, self.batch, self.view)

    def _mean(self, first: int, last: int) -> Tensor:
        """Return mean logits of input rows first..last - 1."""
        self.advance(first, last)
        logits = self.tiles[0].output.logits
        total = logits.new_zeros(*logits.shape[:2], last - first, self.inputs.size[1], dtype=torch.float32)
        hits = total.new_zeros(total.shape[-2:])
        for tile in self.tiles:
            begin, end = max(first, tile.top), min(last, tile.top + self.side[0])
            if begin >= end:
                continue
            area = (slice(begin - first, end - first), slice(tile.left, tile.left + self.side[1]))
            total[..., area[0], area[1]] += tile.rows(begin - tile.top, end - tile.top)
            hits[area] += 1
        return total.div_(hits)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What is still needed of a window: pixels top..bottom - 1, left..right - 1, and the logits under them."""

    logits: Tensor
    rows: Axis
    columns: Axis
    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def of(cls, tile: Tile) -> _Part:
        rows, columns = tile.axes()
        return cls(
            logits=tile.output.logits,
            rows=rows,
            columns=columns,
            top=tile.top,
            bottom=tile.top + tile.size[0],
            left=tile.left,
            right=tile.left + tile.size[1],
        )

    def below(self, row: int) -> _Part:
        """Return a copy of the part from `row` on, so that the rest can be forgotten."""
        rows = self.rows.part(row - self.top, self.bottom - self.top)
        first, last = rows.reach()
        return replace(self, logits=self.logits[:, :, first:last].clone(), rows=rows.over(first, last), top=row)

    def covers(self, top: int, left: int) -> bool:
        return self.top <= top < self.bottom and self.left <= left < self.right

    def over(self, top: int, bottom: int, left: int, right: int) -> Upsampling:
        return Upsampling(
            logits=self.logits,
            rows=self.rows.part(top - self.top, bottom - self.top),
            columns=self.columns.part(left - self.left, right - self.left),
        )


def _maps_by_regions(
    inputs: Pixels, windows: Windows, network: Network, *, confidence: bool, batch: int | None
) -> tuple[Tensor, Tensor | None]:
    """Return class map and confidence in the inputs' size, see `slide_class_map`."""
    height, width = inputs.size
    tops, lefts, side = upright_grid(inputs.size, windows, UPRIGHT)
    result: Tensor | None = None
    sure: Tensor | None = None
    parts: list[_Part] = []
    for top, bottom in pairwise([*tops, height]):
        done = 0  # columns of the rows top..bottom - 1 that are finished
        for tile, right in zip(run_row(inputs, network, top, lefts, side, batch), [*lefts[1:], width], strict=True):
            parts.append(_Part.of(tile))
            if result is None:
                count, classes = tile.output.logits.shape[:2]
                result = torch.empty(count, height, width, dtype=torch.uint8 if classes <= 255 else torch.int32)
                sure = torch.empty(count, height, width) if confidence else None
            for region in _regions(parts, top, bottom, done, right):
                area = (..., slice(*region[:2]), slice(*region[2:]))
                upsamplings = [part.over(*region) for part in parts if part.covers(region[0], region[2])]
                summed_class_map(upsamplings, result[area], None if sure is None else sure[area])
            done = right
            parts = [part for part in parts if part.right > done or part.bottom > bottom]
            parts = [part.below(bottom) if part.right <= done and part.top < bottom else part for part in parts]
    assert result is not None
    return result, sure


def _regions(
    parts: Sequence[_Part], top: int, bottom: int, left: int, right: int
) -> Iterator[tuple[int, int, int, int]]:
    """Cut an area where windows begin or end; yield (top, bottom, left, right) of the pieces."""
    rows = {edge for part in parts for edge in (part.top, part.bottom) if top < edge < bottom}
    columns = {edge for part in parts for edge in (part.left, part.right) if left < edge < right}
    for first, last in pairwise(sorted({top, bottom, *rows})):
        for begin, end in pairwise(sorted({left, right, *columns})):
            yield first, last, begin, end


def run_row(
    inputs: Pixels,
    network: Network,
    top: int,
    lefts: Sequence[int],
    side: tuple[int, int],
    batch: int | None,
    view: View = UPRIGHT,
) -> Iterator[Tile]:
    """Run a row of windows, `batch` of them a pass, and yield their outputs from left to right."""
    pose = view.pose_only()
    done = 0
    while done < len(lefts):
        seen = [pose.seen(inputs.part(top, lefts[done], *side))]
        image = image_of(seen[0])
        if batch is None:
            limit = BATCH_PIXELS if image.device.type == "cpu" else DEVICE_BATCH_PIXELS
            batch = max(1, limit // (len(image) * side[0] * side[1]))
        seen += [pose.seen(inputs.part(top, left, *side)) for left in lefts[done + 1 : done + batch]]
        output = network(joined(seen))._replace(aux={})
        covered = (image.shape[-2], image.shape[-1])
        for left, logits in zip(lefts[done : done + batch], output.logits.split(len(image)), strict=True):
            own = output._replace(logits=logits)
            yield Tile(output=own, size=side, covered=covered, view=view, top=top, left=left)
        done += batch


def upright_grid(size: tuple[int, int], windows: Windows, view: View) -> tuple[list[int], list[int], tuple[int, int]]:
    """Return where windows over the view of an image of `size` begin upright, rows and columns, and their size."""
    swapped, *reversed_axes = view.pose()
    starts: list[list[int]] = []
    sides = []
    for axis in range(2):
        seen = 1 - axis if swapped else axis  # the view's axis that is this one upright
        side = min(windows.crop[seen], size[axis])
        found = window_starts(size[axis], windows.crop[seen], windows.stride[seen])
        starts.append(sorted(size[axis] - side - start for start in found) if reversed_axes[axis] else found)
        sides.append(side)
    return starts[0], starts[1], (sides[0], sides[1])


def _step(side: int, overlap: float) -> int:
    step = max(1, round(side * (1 - overlap)))
    return step if side < 64 else min(side, max(16, round(step / 16) * 16))
