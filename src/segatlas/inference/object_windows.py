"""Objects and segments of large images by overlapping windows: what a seam cuts is joined, what is seen twice is one.

Each window is a whole image to the network and gives whole results. A piece is an object found in one of them; it is
cut where it reaches a side of its window that is not the image's.

1. Of pieces that are not cut and cover each other where both windows look, the one deepest in its window stays.
2. A cut piece that such a one covers is that object, and goes.
3. So does a cut piece all of which a window sees, away from its sides, that finds no such object there: it looked at
   more. Nothing else is left out without a counterpart, and a warning says how many pieces are, once of all images.
4. Other cut pieces that cover each other where both windows look are one object: its mask is all of them together, its
   class and score those of the largest. One without a counterpart stays as it is.

Class maps, and the stuff of segments, are taken from the window in which a pixel lies deepest. Held are the maps of a
window, the runs of all masks, and maps of the result's size.

Letters: H W result.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from segatlas.config.objects import ObjectRule
from segatlas.inference.sliding import Pixels, Windows
from segatlas.ops import window_starts
from segatlas.postprocess.composing import composed
from segatlas.postprocess.selecting import selected
from segatlas.structures import Inputs, Instance, Result, Rle

Size = tuple[int, int]
Box = tuple[int, int, int, int]
"""(top, left, bottom, right), the last two exclusive."""

NEAR = 2
"""A mask that ends so few pixels before a side of its window, or fewer, may go on behind it."""

SAME = 0.5
"""Fraction of the pixels, of those where both windows look, from which on two pieces are one object."""

AT_ONCE = 512
"""Pieces that are compared with all others by their boxes at once."""

Segmented = Callable[[Tensor | Inputs, Size, ObjectRule], list[Result]]
"""Maps a window to the results of its images at a size, by a rule."""


class SeenObject(NamedTuple):
    """An object as one window shows it. one: with its mask in the image. seen: the window. cut: it may go on."""

    one: Instance
    seen: Box
    cut: bool

    @property
    def depth(self) -> int:
        """Distance of the box from the nearest side of the window."""
        inner, outer = self.one.rle.box, self.seen
        return min(inner[0] - outer[0], inner[1] - outer[1], outer[2] - inner[2], outer[3] - inner[3])


@dataclass(kw_only=True)
class WindowNotices:
    """What is to be told of the windows of all images of a call, once.

    full: windows with as many objects as the network gives at most. most: so many. left_out: pieces left out
    unconfirmed. best: the highest score of these.
    """

    full: int = 0
    most: int = 0
    left_out: int = 0
    best: float = 0.0

    def tell(self) -> None:
        """Warn of what there is."""
        if self.full:
            warnings.warn(
                f"{self.full} windows hold {self.most} objects, as many as the network gives at most: there may be "
                "more; a smaller window or a larger --top shows them",
                stacklevel=3,
            )
        if self.left_out:
            warnings.warn(
                f"{self.left_out} pieces that sides of windows cut are left out, the best with a score of "
                f"{self.best:.2f}: another window sees all of each and finds no such object there; a larger overlap or "
                "window may find them",
                stacklevel=3,
            )


def results_by_windows(
    inputs: Pixels,
    windows: Windows,
    segmented: Segmented,
    size: Size,
    *,
    rule: ObjectRule,
    things: Sequence[bool],
    most: int | None,
    notices: WindowNotices,
) -> list[Result]:
    """Return the results of a batch of images.

    Args:
        inputs: the batch.
        windows: their size and step, in pixels of the inputs.
        segmented: the network and what makes results of its outputs.
        size: (H, W) of the results.
        rule: how objects and segments are made. Its bounds on their number and on the area of stuff hold for the image.
        things: of each class, whether it is one of things.
        most: objects that the network gives of a window at most. None = any.
        notices: what is to be told of it, counted on.
    """
    within = replace(rule, stuff_area=0)
    images: list[_Image] = []
    for place in _places(inputs.size, windows, size):
        top, left, bottom, right = place.inputs
        seen = place.seen
        part = inputs.part(top, left, bottom - top, right - left)
        for index, result in enumerate(segmented(part, (seen[2] - seen[0], seen[3] - seen[1]), within)):
            if index == len(images):
                images.append(_Image(size, result, len(things)))
            images[index].take(result, place)
            if most is not None and len(result.objects or ()) >= most:
                notices.full, notices.most = notices.full + 1, most
    results = []
    for one in images:
        result, lost = one.result(rule)
        results.append(result)
        notices.left_out += len(lost)
        notices.best = max([notices.best, *(piece.score for piece in lost)])
    return results


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A window. inputs: its box there. seen: its box in the result. own: where pixels lie deepest in it."""

    inputs: Box
    seen: Box
    own: Box


def _places(given: Size, windows: Windows, size: Size) -> list[_Place]:
    """Return the windows from left to right, row by row."""
    lines = [_line(*axis) for axis in zip(given, windows.crop, windows.stride, size, strict=True)]
    return [
        _Place(
            inputs=(row[0][0], column[0][0], row[0][1], column[0][1]),
            seen=(row[1][0], column[1][0], row[1][1], column[1][1]),
            own=(row[2][0], column[2][0], row[2][1], column[2][1]),
        )
        for row in lines[0]
        for column in lines[1]
    ]


def _line(given: int, side: int, step: int, length: int) -> list[tuple[tuple[int, int], ...]]:
    """Return the windows along an axis: where they lie in the inputs, in the result, and which part is their own."""
    spans = [(start, min(start + side, given)) for start in window_starts(given, side, step)]
    seen = [(round(first * length / given), round(last * length / given)) for first, last in spans]
    middles = [(seen[index][1] + seen[index + 1][0]) // 2 for index in range(len(seen) - 1)]
    own = [*zip([0, *middles], [*middles, length], strict=True)]
    return [*zip(spans, seen, own, strict=True)]


class _Image:
    """What the windows so far show of one image."""

    def __init__(self, size: Size, first: Result, classes: int):
        self.size, self.classes = size, classes
        self.objects: list[SeenObject] | None = None if first.objects is None else []
        self.things: list[SeenObject] = []
        self.windows: list[Box] = []
        self.class_map = None if first.class_map is None else np.zeros(size, first.class_map.dtype)
        self.stuff = None if first.segments is None else np.full(size, classes, np.int32)

    def take(self, result: Result, place: _Place) -> None:
        """Take what a window shows."""
        self.windows.append(place.seen)
        top, left, bottom, right = place.own
        inner = (slice(top - place.seen[0], bottom - place.seen[0]), slice(left - place.seen[1], right - place.seen[1]))
        if self.objects is not None:
            self.objects += [self._piece(one, one.rle, place) for one in result.instances if one.area]
        if self.class_map is not None:
            self.class_map[top:bottom, left:right] = result.semantic[inner]
        if self.stuff is not None:
            kinds = np.full(1 + max((one.id for one in result.panoptic.segments), default=0), self.classes, np.int32)
            for one in result.panoptic.segments:
                if not one.is_thing:
                    kinds[one.id] = one.class_index
                    continue
                y, x, below, behind = one.box
                inside = result.panoptic.ids[y:below, x:behind] == one.id
                mask = Rle.placed(inside, (result.panoptic.ids.shape[0], result.panoptic.ids.shape[1]), y, x)
                score = 1.0 if one.score is None else one.score
                self.things.append(
                    self._piece(Instance(mask=mask, class_index=one.class_index, score=score), mask, place)
                )
            self.stuff[top:bottom, left:right] = kinds[result.panoptic.ids[inner]]

    def _piece(self, one: Instance, mask: Rle, place: _Place) -> SeenObject:
        """Return an object of a window as a piece of the image."""
        top, left, _, _ = place.seen
        y, x, _, _ = mask.box
        moved = Rle.placed(mask.part(), self.size, y + top, x + left)
        box = tuple(side + shift for side, shift in zip(one.box, (top, left, top, left), strict=True))
        whole = replace(one, mask=moved, box=(box[0], box[1], box[2], box[3]))
        return SeenObject(whole, place.seen, _is_cut(moved.box, place.seen, self.size))

    def result(self, rule: ObjectRule) -> tuple[Result, list[Instance]]:
        """Return what the image holds, and the pieces left out unconfirmed: of objects or segments, the longer list."""
        objects = segments = None
        lost: list[Instance] = []
        if self.objects is not None:
            found, lost = joined(self.objects, self.windows)
            objects = selected(found, rule)
        if self.stuff is not None:
            found, of_segments = joined(self.things, self.windows)
            things = sorted(found, key=lambda one: -one.score)
            segments = composed(things, self.stuff, self.classes, replace(rule, things_score=0.0))
            lost = max(lost, of_segments, key=len)
        return Result(class_map=self.class_map, objects=objects, segments=segments), lost


def _is_cut(box: Box, window: Box, size: Size) -> bool:
    """Tell whether what a window shows in a box may go on behind one of its sides."""
    before = any(window[side] > 0 and box[side] - window[side] <= NEAR for side in (0, 1))
    return before or any(window[side + 2] < size[side] and window[side + 2] - box[side + 2] <= NEAR for side in (0, 1))


def joined(pieces: Sequence[SeenObject], windows: Sequence[Box]) -> tuple[list[Instance], list[Instance]]:
    """Return the objects that pieces of windows make, and the pieces left out without a counterpart.

    See the head of this file; `windows` are all that looked.
    """
    pairs = _pairs(pieces)
    whole = sorted((index for index, piece in enumerate(pieces) if not piece.cut), key=lambda i: -pieces[i].depth)
    gone: set[int] = set()
    for index in whole:
        if index not in gone:
            gone |= {other for other in pairs.get(index, {}) if not pieces[other].cut}
    kept = [index for index in whole if index not in gone]
    loose = [
        index
        for index, piece in enumerate(pieces)
        if piece.cut and all(pieces[other].cut for other in pairs.get(index, {}))
    ]
    unconfirmed = {index for index in loose if _is_unconfirmed(index, pieces, pairs, windows)}
    groups = _groups([index for index in loose if index not in unconfirmed], pairs)
    found = [
        *(pieces[index].one for index in kept),
        *(_together([pieces[index] for index in group]) for group in groups),
    ]
    return found, [pieces[index].one for index in sorted(unconfirmed)]


def _is_unconfirmed(
    index: int, pieces: Sequence[SeenObject], pairs: dict[int, dict[int, float]], windows: Sequence[Box]
) -> bool:
    """Tell whether a window sees all of a cut piece, not at its own sides, and finds no such object there."""
    piece = pieces[index]
    box, size = piece.one.rle.box, piece.one.rle.size
    agreeing = {pieces[other].seen for other in pairs.get(index, {})}
    return any(
        window != piece.seen
        and window not in agreeing
        and window[0] <= box[0]
        and window[1] <= box[1]
        and window[2] >= box[2]
        and window[3] >= box[3]
        and not _is_cut(box, window, size)
        for window in windows
    )


def _pairs(pieces: Sequence[SeenObject]) -> dict[int, dict[int, float]]:
    """Return for each piece those of other windows that show the same object, and how much of it is common."""
    found: dict[int, dict[int, float]] = {}
    if not pieces:
        return found
    boxes = np.array([piece.one.rle.box for piece in pieces])
    windows = np.array([piece.seen for piece in pieces])
    for begin in range(0, len(pieces), AT_ONCE):
        part = slice(begin, begin + AT_ONCE)
        low = np.maximum(boxes[part, None, :2], boxes[None, :, :2])
        high = np.minimum(boxes[part, None, 2:], boxes[None, :, 2:])
        near = (low < high).all(axis=2) & (windows[part, None] != windows[None]).any(axis=2)
        parts: dict[int, np.ndarray] = {}  # masks of these and of their neighbours, each made once
        for row, other in np.argwhere(near).tolist():
            index = begin + row
            if other > index:
                for one in (index, other):
                    if one not in parts:
                        parts[one] = pieces[one].one.rle.part()
                common = _alike(pieces[index], pieces[other], parts[index], parts[other])
                if common:
                    found.setdefault(index, {})[other] = common
                    found.setdefault(other, {})[index] = common
    return found


def _alike(one: SeenObject, other: SeenObject, part: np.ndarray, other_part: np.ndarray) -> float:
    """Return how much two pieces have in common where both windows look, 0.0 where they are not the same object.

    `part` and `other_part` are their masks inside their boxes.
    """
    top, left = max(one.seen[0], other.seen[0]), max(one.seen[1], other.seen[1])
    bottom, right = min(one.seen[2], other.seen[2]), min(one.seen[3], other.seen[3])
    both = (top, left, bottom, right)
    areas = [_within(one.one.rle.box, part, both), _within(other.one.rle.box, other_part, both)]
    if not all(area.any() for area in areas):
        return 0.0
    common = float(np.count_nonzero(areas[0] & areas[1]))
    counts = [int(np.count_nonzero(area)) for area in areas]
    if common >= SAME * (sum(counts) - common):
        same_class = one.one.class_index == other.one.class_index
        return common if same_class or one.cut or other.cut else 0.0
    if not (one.cut or other.cut):
        return 0.0
    if one.one.class_index == other.one.class_index and common >= SAME * min(counts):
        return common
    for piece, count in ((one, counts[0]), (other, counts[1])):  # a scrap, all of which the other window sees too
        if piece.cut and count == piece.one.area and common >= SAME * count:
            return common
    return 0.0


def _within(own: Box, mask: np.ndarray, box: Box) -> np.ndarray:
    """Return inside a box, (bottom - top, right - left) bool, the mask that is known inside `own`."""
    top, left, bottom, right = box
    y, x, below, behind = own
    found = np.zeros((bottom - top, right - left), bool)
    rows, columns = (max(y, top), min(below, bottom)), (max(x, left), min(behind, right))
    if rows[0] < rows[1] and columns[0] < columns[1]:
        part = mask[rows[0] - y : rows[1] - y, columns[0] - x : columns[1] - x]
        found[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left] = part
    return found


def _groups(loose: Sequence[int], pairs: dict[int, dict[int, float]]) -> list[list[int]]:
    """Return the loose pieces, those that hang together in one list."""
    left, groups = set(loose), []
    for first in loose:
        if first not in left:
            continue
        left.discard(first)
        group, waiting = [], [first]
        while waiting:
            index = waiting.pop()
            group.append(index)
            near = [other for other in pairs.get(index, {}) if other in left]
            left -= set(near)
            waiting += near
        groups.append(group)
    return groups


def _together(pieces: Sequence[SeenObject]) -> Instance:
    """Return the object that cut pieces make."""
    if len(pieces) == 1:
        return pieces[0].one
    largest = max((piece.one for piece in pieces), key=lambda one: one.area)
    boxes = np.array([piece.one.rle.box for piece in pieces])
    top, left = boxes[:, :2].min(axis=0).tolist()
    bottom, right = boxes[:, 2:].max(axis=0).tolist()
    inside = np.zeros((bottom - top, right - left), bool)
    for piece, (y, x, below, behind) in zip(pieces, boxes.tolist(), strict=True):
        inside[y - top : below - top, x - left : behind - left] |= piece.one.rle.part()
    mask = Rle.placed(inside, largest.rle.size, top, left)
    return Instance(mask=mask, class_index=largest.class_index, score=largest.score)
