"""The true objects of an image as queries learn them: read at points, or whole, without a map of floats for each.

Letters: M objects, P points, R masks, H W truth, H' W' canvas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from segatlas.labels import IGNORE
from segatlas.structures import InstancesTarget, SegmentsTarget, Target

Size = tuple[int, int]
NOBODY = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class QueryTruth:
    """The objects of one image. Beyond the truth, on the canvas, nobody is.

    classes: (M,) int64. ids: (H, W) int64, index of the object of each pixel, -1 = of none; or masks: (M, H, W) bool,
    which may overlap. judged: (H, W) bool, False where nothing is learned: void, crowds, padding; None = everywhere,
    the canvas beyond the truth included. canvas: (H', W') pixels that points are fractions of.
    """

    classes: Tensor
    ids: Tensor | None
    masks: Tensor | None
    judged: Tensor | None
    canvas: Size

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def size(self) -> Size:
        """(H, W) of the truth."""
        maps = self.ids if self.ids is not None else self.masks
        assert maps is not None
        return maps.shape[-2], maps.shape[-1]

    def at(self, points: Tensor) -> Tensor:
        """Return what each object covers of points (P, 2), bilinearly: (M, P) float, 0..1."""
        found = points.new_zeros(len(self), len(points))
        for place, weight in self._corners(points):
            if self.masks is not None:
                found += weight * self.masks.flatten(1)[:, place]
            else:
                assert self.ids is not None
                owner = self.ids.flatten()[place]
                there = (owner >= 0).nonzero()[:, 0]
                found[owner[there], there] += weight[there]
        return found

    def own(self, rows: Tensor, points: Tensor) -> Tensor:
        """Return what objects (R,) cover of points (R, P, 2) of their own: (R, P) float, 0..1."""
        found = points.new_zeros(points.shape[:-1])
        for place, weight in self._corners(points):
            if self.masks is not None:
                pixels = self.size[0] * self.size[1]
                covered = self.masks.flatten().take(rows[:, None] * pixels + place)
            else:
                assert self.ids is not None
                covered = self.ids.flatten()[place] == rows[:, None]
            found += weight * covered
        return found

    def judged_at(self, points: Tensor) -> Tensor | None:
        """Tell (...,) whether something is learned in the pixel of points (..., 2); None = in all of them."""
        if self.judged is None:
            return None
        (height, width), (tall, wide) = self.size, self.canvas
        column, row = (points[..., 0] * wide).long(), (points[..., 1] * tall).long()
        inside = (row < height) & (column < width)
        place = row.clamp(max=height - 1) * width + column.clamp(max=width - 1)
        return self.judged.flatten()[place] & inside

    def whole(self, rows: Tensor) -> Tensor:
        """Return the masks of objects (R,) on the canvas: (R, H', W') bool."""
        if self.masks is not None:
            return _grown(self.masks[rows], self.canvas)
        assert self.ids is not None
        return _grown(self.ids == rows[:, None, None], self.canvas)

    def nearest(self, size: Size) -> tuple[Tensor, Tensor | None]:
        """Return what objects cover of a smaller map, (M, pixels) bool, and where is judged (pixels,), None = all."""
        (height, width), (tall, wide) = self.size, self.canvas
        device = self.classes.device
        row = (torch.arange(size[0], device=device) * (tall / size[0])).long()
        column = (torch.arange(size[1], device=device) * (wide / size[1])).long()
        inside = ((row < height)[:, None] & (column < width)).flatten()
        place = (row.clamp(max=height - 1)[:, None] * width + column.clamp(max=width - 1)).flatten()
        if self.masks is not None:
            covered = self.masks.flatten(1)[:, place]
        else:
            assert self.ids is not None
            covered = self.ids.flatten()[place] == torch.arange(len(self), device=device)[:, None]
        return covered & inside, None if self.judged is None else self.judged.flatten()[place] & inside

    def judged_whole(self) -> Tensor | None:
        """Return `judged` on the canvas, (H', W'); None = everywhere."""
        return None if self.judged is None else _grown(self.judged, self.canvas)

    def _corners(self, points: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the four pixels around points (..., 2): places in the truth and weights, 0 where they lie beyond it."""
        (height, width), (tall, wide) = self.size, self.canvas
        x, y = points[..., 0] * wide - 0.5, points[..., 1] * tall - 0.5
        left, top = x.floor(), y.floor()
        across, down = x - left, y - top
        for below, of_row in ((0, 1 - down), (1, down)):
            for right, of_column in ((0, 1 - across), (1, across)):
                row, column = top.long() + below, left.long() + right
                inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
                place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
                yield place, of_row * of_column * inside


class QueryTruths:
    """The truths of a batch, made once for all terms that read them in the same way."""

    def __init__(self, targets: Sequence[Target] | Tensor, canvas: Size, device: torch.device):
        self.targets, self.canvas, self.device = targets, canvas, device
        self._made: dict[bool, list[QueryTruth]] = {}

    def of(self, void_is_ignored: bool) -> list[QueryTruth]:
        """Return the truth of each image; see `truth_of`."""
        if void_is_ignored not in self._made:
            self._made[void_is_ignored] = [
                truth_of(target, self.canvas, self.device, void_is_ignored=void_is_ignored) for target in self.targets
            ]
        return self._made[void_is_ignored]


def truth_of(target: Any, canvas: Size, device: torch.device, *, void_is_ignored: bool) -> QueryTruth:
    """Return what queries learn of a truth; objects without a pixel and crowds are none.

    Args:
        target: an `InstancesTarget`, a `SegmentsTarget`, or labels (H, W), each class of which is an object.
        canvas: (H', W') that the logits cover; the truth is its top left part.
        device: where the logits lie.
        void_is_ignored: void, crowds and padding are not judged, else they are background.
    """
    if isinstance(target, InstancesTarget):
        return _of_objects(target, canvas, device, void_is_ignored)
    if isinstance(target, SegmentsTarget):
        ids = torch.as_tensor(target.ids, device=device).long()
        classes = torch.as_tensor(target.classes, device=device).long()
        crowd = torch.as_tensor(target.crowd, device=device).bool()
    else:
        labels = torch.as_tensor(target, device=device).long()
        classes, ids = labels.unique(return_inverse=True)
        crowd = classes == IGNORE
    seen = torch.bincount(ids[ids >= 0], minlength=len(classes)) > 0
    kept = seen & ~crowd
    table = torch.where(kept, kept.cumsum(0) - 1, NOBODY)
    ids = torch.cat([table, table.new_tensor([NOBODY])])[ids]  # -1 is the last
    judged = _judged(ids >= 0, canvas) if void_is_ignored else None
    return QueryTruth(classes=classes[kept], ids=ids, masks=None, judged=judged, canvas=canvas)


def _of_objects(target: InstancesTarget, canvas: Size, device: torch.device, void_is_ignored: bool) -> QueryTruth:
    masks = torch.as_tensor(target.masks, device=device).bool()
    classes = torch.as_tensor(target.classes, device=device).long()
    crowd = torch.as_tensor(target.crowd, device=device).bool()
    kept = masks.flatten(1).any(dim=1) & ~crowd
    judged = None
    if void_is_ignored:
        judged = ~masks[crowd].any(dim=0)
        if target.padding is not None:
            judged &= ~torch.as_tensor(target.padding, device=device).bool()
        judged = _judged(judged, canvas)
    return QueryTruth(classes=classes[kept], ids=None, masks=masks[kept], judged=judged, canvas=canvas)


def _judged(flags: Tensor, canvas: Size) -> Tensor | None:
    """Return what is judged, (H, W) bool; None where that is the whole canvas."""
    return None if tuple(flags.shape) == tuple(canvas) and bool(flags.all()) else flags


def _grown(maps: Tensor, canvas: Size) -> Tensor:
    """Return maps (..., H, W) bool on the canvas, False beyond them."""
    return pad(maps, (0, canvas[1] - maps.shape[-1], 0, canvas[0] - maps.shape[-2]))
