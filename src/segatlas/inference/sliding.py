"""Large pictures by overlapping windows.

Every window's logits are raised to the window's size; a pixel's logits are the mean over the windows that cover it.
`slide` does this as it is said, and holds everything. Everything else keeps the windows' logits at the network's own
stride, for one row of windows at a time, and makes of them what is wanted, band by band: labels by `slide_class_map`,
logits at the result's size by `WindowRows`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from segatlas.errors import UsageError
from segatlas.inference.tta import UPRIGHT, View
from segatlas.ops import window_starts
from segatlas.ops.raising import raise_rows, resample
from segatlas.ops.sampling import Axis, make_axis
from segatlas.ops.summed_map import Raise, band_rows, best_of, summed_class_map
from segatlas.structures import SemanticLogits
from segatlas.weights.card import InferenceMode

DEFAULT_OVERLAP = 1 / 3

BATCH_PIXELS = 1 << 18
"""Pixels of windows per pass on a processor: only windows below 512x512 share one; larger ones keep it busy alone."""

DEVICE_BATCH_PIXELS = 1 << 22
"""Pixels of windows per pass elsewhere: four windows of 1024x1024."""

Scorer = Callable[[Tensor], Tensor]
Network = Callable[[Tensor], SemanticLogits]


class Pixels(Protocol):
    """A normalised batch of which windows can be had; see `pictures.Inputs`."""

    size: tuple[int, int]

    def part(self, top: int, left: int, height: int, width: int) -> Tensor:
        """Return a window, (N, C, height, width)."""
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
    """Return the windows that a card asks for, None for whole pictures."""
    if mode.mode == "whole" or mode.crop is None:
        return None
    return Windows(crop=mode.crop, stride=mode.stride) if mode.stride else make_windows(mode.crop)


def slide(images: Tensor, windows: Windows, score: Scorer) -> Tensor:
    """Return the mean of the windows' logits at every pixel of the batch, the plain way.

    Args:
        images: (N, C, H, W).
        windows: size and step; the last window of a row or column is moved back to end at the edge.
        score: maps a window (N, C, h, w) to logits (N, K, h, w).

    Returns:
        (N, K, H, W) float32.
    """
    height, width = images.shape[-2:]
    high, wide = min(windows.crop[0], height), min(windows.crop[1], width)
    hits = torch.zeros(height, width, device=images.device)
    total: Tensor | None = None
    for top in window_starts(height, windows.crop[0], windows.stride[0]):
        for left in window_starts(width, windows.crop[1], windows.stride[1]):
            logits = score(images[..., top : top + high, left : left + wide]).float()
            total = logits.new_zeros(*logits.shape[:2], height, width) if total is None else total
            total[..., top : top + high, left : left + wide] += logits
            hits[top : top + high, left : left + wide] += 1
    assert total is not None
    return total.div_(hits)


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
        network: maps windows (M, C, h, w) to their logits at its own stride.
        size: (H, W) of the result; where it is not the inputs', the mean is raised once more, to it.
        confidence: also return the probability of the chosen class.
        batch: windows per pass of the network; default: see BATCH_PIXELS.

    Returns:
        (N, H, W) uint8 (int32 above 255 classes) and (N, H, W) float32 or None, on the processor.
    """
    rows = WindowRows(inputs, windows, network, size, batch=batch)
    if size == inputs.size and not confidence:
        return _labels_by_regions(rows), None
    maps, sure = [], []
    for logits in rows.bands():
        best = best_of(logits)
        maps.append(best.to(torch.uint8 if logits.shape[1] <= 255 else torch.int32).cpu())
        if confidence:
            top = logits.gather(1, best.long().unsqueeze(1)).squeeze(1)
            sure.append((top - logits.logsumexp(dim=1)).exp().cpu())
    return torch.cat(maps, dim=1), torch.cat(sure, dim=1) if confidence else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """Network output for a part of the upright picture, seen under a view's turns and flip.

    size: (height, width) pixels that the output is raised to, upright. covered: (h, w) pixels of the network's input,
    as the view saw it; the output's canvas may be larger. top, left: where the part begins.
    """

    output: SemanticLogits
    size: tuple[int, int]
    covered: tuple[int, int]
    view: View = UPRIGHT
    top: int = 0
    left: int = 0

    def rows(self, first: int, last: int) -> Tensor:
        """Return raised logits (N, K, last - first, width) of rows of the part, upright."""
        swapped, reversed_rows, reversed_columns = self.view.pose()
        logits, canvas, covered = self.output.logits, self.output.canvas, self.covered
        if swapped:
            logits = logits.transpose(-1, -2)
            canvas, covered = (canvas[1], canvas[0]), (covered[1], covered[0])
        if reversed_rows:
            first, last = self.size[0] - last, self.size[0] - first
        mode, align_corners = self.output.resample
        raised = raise_rows(
            logits, self.size, first, last, canvas=canvas, crop=covered, align_corners=align_corners, mode=mode
        )
        return raised.flip([dim for dim, turned in ((-2, reversed_rows), (-1, reversed_columns)) if turned])

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
        self.tops, self.lefts, self.side = _upright_grid(inputs.size, windows, view)
        self.tiles: list[Tile] = []  # those that reach the current rows, by row of windows, then from left to right
        self._coming = list(self.tops)

    def sample(self) -> Tensor:
        """Return logits of the first window as the network gave them."""
        self.advance(0, 1)
        return self.tiles[0].output.logits

    def bands(self) -> Iterator[Tensor]:
        """Yield all rows, (N, K, rows, W) at a time, few enough to be small."""
        step = band_rows(self.sample(), self.size[1])
        for first in range(0, self.size[0], step):
            yield self.rows(first, min(first + step, self.size[0]))

    def rows(self, first: int, last: int) -> Tensor:
        """Return rows first..last - 1 at `size`, (N, K, last - first, W) float32; `first` never goes back."""
        if self.size == self.inputs.size:
            return self._mean(first, last)
        axis = make_axis(self.inputs.size[0], self.size[0]).part(first, last)
        top, bottom = axis.reach()
        mean = self._mean(top, bottom)
        raised = resample(mean, 2, axis.over(top, bottom).to(mean.device))
        return resample(raised, 3, make_axis(self.inputs.size[1], self.size[1], device=mean.device))

    def advance(self, first: int, last: int) -> None:
        """Forget windows above input row `first`, and run those that reach above row `last`."""
        self.tiles = [tile for tile in self.tiles if tile.top + self.side[0] > first]
        while self._coming and self._coming[0] < last:
            self._run(self._coming.pop(0))

    def _run(self, top: int) -> None:
        """Run one row of windows."""
        high, wide = self.side
        lefts, batch = list(self.lefts), self.batch
        while lefts:
            parts = [self.view.pose_only().apply(self.inputs.part(top, lefts[0], high, wide))]
            if batch is None:
                limit = BATCH_PIXELS if parts[0].device.type == "cpu" else DEVICE_BATCH_PIXELS
                batch = max(1, limit // (len(parts[0]) * high * wide))
            parts += [self.view.pose_only().apply(self.inputs.part(top, x, high, wide)) for x in lefts[1:batch]]
            output = self.network(torch.cat(parts) if len(parts) > 1 else parts[0])
            covered = (parts[0].shape[-2], parts[0].shape[-1])
            for left, logits in zip(lefts[:batch], output.logits.split(len(parts[0])), strict=True):
                self.tiles.append(
                    Tile(
                        output=output._replace(logits=logits, aux={}),
                        size=self.side,
                        covered=covered,
                        view=self.view,
                        top=top,
                        left=left,
                    )
                )
            lefts = lefts[batch:]

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


def _labels_by_regions(rows: WindowRows) -> Tensor:
    """Return the class map (N, H, W) of the sum of the windows, region by region of one set of windows each.

    The mean has the same best class as the sum.
    """
    height, width = rows.size
    row_cuts, column_cuts = _cuts(rows.tops, rows.side[0]), _cuts(rows.lefts, rows.side[1])
    result: Tensor | None = None
    for top, bottom in pairwise(row_cuts):
        rows.advance(top, bottom)
        tiles = [(tile, *tile.axes()) for tile in rows.tiles if tile.top <= top and bottom <= tile.top + rows.side[0]]
        if result is None:
            count, classes = tiles[0][0].output.logits.shape[:2]
            result = torch.empty(count, height, width, dtype=torch.uint8 if classes <= 255 else torch.int32)
        for left, right in pairwise(column_cuts):
            raises = [
                Raise(
                    logits=tile.output.logits,
                    rows=down.part(top - tile.top, bottom - tile.top),
                    columns=across.part(left - tile.left, right - tile.left),
                )
                for tile, down, across in tiles
                if tile.left <= left and right <= tile.left + rows.side[1]
            ]
            summed_class_map(raises, result[:, top:bottom, left:right])
    assert result is not None
    return result


def _upright_grid(size: tuple[int, int], windows: Windows, view: View) -> tuple[list[int], list[int], tuple[int, int]]:
    """Return where windows over the view of a picture of `size` begin upright, rows and columns, and their size."""
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


def _cuts(starts: list[int], side: int) -> list[int]:
    """Return where windows begin or end along an axis, in order."""
    return sorted({*starts, *(start + side for start in starts)})


def _step(side: int, overlap: float) -> int:
    step = max(1, round(side * (1 - overlap)))
    return step if side < 64 else min(side, max(16, round(step / 16) * 16))
