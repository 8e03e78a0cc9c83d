"""Masks as lengths of runs: what an object is kept as, with holes and in several parts, a hundredth of its bitmap.

The order is COCO's: pixels go down the columns, left to right; the first run is of zeros and may be empty.

Letters: H, W image, R runs, P and T masks of two groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from segatlas.errors import DataError

MOST_PIXELS = (1 << 31) - 1
"""Of a mask that is read: more is no image."""

PIECE = 1 << 20
"""Ends of runs that are looked up at once."""

_LONGEST = 7
"""Letters of one number: 35 bits, more than MOST_PIXELS has."""


@dataclass(frozen=True, eq=False)
class Rle:
    """A mask. size: (H, W). counts: (R,) uint32, lengths of runs as the file says; none is empty but the first.

    `Rle.of` makes one from a bitmap, `Rle.read` from what a file holds. The array is not to be written to.
    """

    size: tuple[int, int]
    counts: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> Rle:
        """Return the runs of a (H, W) mask; what is not 0 is inside."""
        if mask.ndim != 2:
            raise DataError(f"a mask is {mask.shape}, expected (H, W)")
        return cls.placed(mask, (int(mask.shape[0]), int(mask.shape[1])))

    @classmethod
    def placed(cls, part: np.ndarray, size: tuple[int, int], top: int = 0, left: int = 0) -> Rle:
        """Return the runs of a mask of `size` that is 0 but for a part (h, w), which begins at (top, left) in it."""
        part = part if part.dtype == np.bool_ else part != 0
        columns = np.flatnonzero(part.any(axis=0))
        if not columns.size:
            return cls(size, _frozen([size[0] * size[1]]))
        first, last = int(columns[0]), int(columns[-1]) + 1
        upright = np.zeros((last - first, part.shape[0] + 1), np.bool_)  # a column ends with a pixel outside
        upright[:, :-1] = part[:, first:last].T
        flat = upright.ravel()
        ends = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        if flat[0]:
            ends = np.concatenate([[0], ends])
        column, row = np.divmod(ends, part.shape[0] + 1)
        places = (column + first + left) * size[0] + row + top
        if part.shape[0] == size[0]:  # a run may go on in the next column
            joined = np.flatnonzero(places[1:] == places[:-1])
            places = np.delete(places, np.concatenate([joined, joined + 1]))
        return cls.between(size, places)

    @classmethod
    def between(cls, size: tuple[int, int], ends: np.ndarray) -> Rle:
        """Return the mask whose runs begin and end, by turns, at these rising places of the order, each once."""
        counts = np.diff(ends, prepend=0, append=size[0] * size[1])
        return cls(size, _frozen(counts[:-1] if counts[-1] == 0 and len(counts) > 1 else counts))

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Rle:
        """Return what COCO's files hold: `size` [H, W], `counts` a list of lengths or their compressed text.

        Raises:
            DataError: it is none, or its lengths do not fill its size.
        """
        try:
            height, width = (int(side) for side in record["size"] if not isinstance(side, bool | str))
            given = record["counts"]
        except (KeyError, TypeError, ValueError, OverflowError):
            raise DataError("no run-length code: expected size [H, W] and counts") from None
        if height < 1 or width < 1 or height * width > MOST_PIXELS:
            raise DataError(f"a run-length code of {height} x {width} pixels; expected 1 to {MOST_PIXELS}")
        counts = _unpacked(given) if isinstance(given, str | bytes) else _listed(given)
        if counts.size and counts.min() < 0:
            raise DataError(f"a run-length code with a run of {counts.min()} pixels")
        total = int(counts.astype(object).sum()) if counts.size else 0
        if total != height * width:
            raise DataError(
                f"a run-length code of {total} pixels for a size of {height} x {width} = {height * width}; its size or "
                "its counts are wrong"
            )
        if counts.size > 1 and not counts[1:].all():  # empty runs: their neighbours are one
            marks = np.cumsum(counts)[:-1]
            places, times = np.unique(marks, return_counts=True)
            keep = (times % 2 == 1) & (places < total)
            return cls.between((height, width), places[keep])
        return cls((height, width), _frozen(counts))

    def record(self) -> dict[str, Any]:
        """Return what COCO's files hold, as a list of lengths."""
        return {"size": list(self.size), "counts": self.counts.tolist()}

    def compressed(self) -> dict[str, Any]:
        """Return what COCO's files hold, as text: a third of the list's length."""
        return {"size": list(self.size), "counts": _packed(self.counts.astype(np.int64)).decode("ascii")}

    def bitmap(self) -> np.ndarray:
        """Return (H, W) bool, made anew."""
        inside = np.zeros(self.counts.size, np.bool_)
        inside[1::2] = True
        height, width = self.size
        return np.ascontiguousarray(np.repeat(inside, self.counts).reshape(width, height).T)

    def part(self) -> np.ndarray:
        """Return the bitmap inside the box, (bottom - top, right - left) bool."""
        top, left, bottom, right = self.box
        height = self.size[0]
        (starts, stops), columns = self.ends, right - left
        flat = np.zeros(columns * height + 1, np.int8)
        flat[starts - left * height] = 1
        flat[stops - left * height] = -1
        inside = np.cumsum(flat[:-1], dtype=np.int8).view(np.bool_).reshape(columns, height)
        return np.ascontiguousarray(inside[:, top:bottom].T)

    @cached_property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the runs inside the mask begin and end, each (R,) int64 places of the order."""
        places = np.cumsum(self.counts, dtype=np.int64)
        return places[:-1:2], places[1::2]

    @cached_property
    def area(self) -> int:
        """Number of pixels inside."""
        return int(self.counts[1::2].sum(dtype=np.int64))

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) in pixels, the last two exclusive; all 0 for an empty mask."""
        starts, stops = self.ends
        if not starts.size:
            return 0, 0, 0, 0
        height = self.size[0]
        left, right = int(starts[0]) // height, (int(stops[-1]) - 1) // height + 1
        rows, last = starts % height, (stops - 1) % height
        if (starts // height != (stops - 1) // height).any():  # a run that goes on in the next column
            return 0, left, height, right
        return int(rows.min()), left, int(last.max()) + 1, right

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same pixels of the same size."""
        if not isinstance(other, Rle):
            return NotImplemented
        return self.size == other.size and np.array_equal(self.counts, other.counts)

    def __hash__(self) -> int:
        return hash((self.size, self.counts.tobytes()))

    def __getstate__(self) -> dict[str, Any]:
        return {"size": self.size, "counts": self.counts}  # not what was worked out from them

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(size=state["size"], counts=_frozen(state["counts"]))


def intersections(many: Sequence[Rle], others: Sequence[Rle], wanted: np.ndarray | None = None) -> np.ndarray:
    """Return (P, T) int64: the pixels that each mask has in common with each of the others; all are of one size.

    wanted: (P, T) bool, the pairs that are looked at, the others are 0; None = all.
    """
    found = np.zeros((len(many), len(others)), np.int64)
    sizes = {one.size for one in (*many, *others)}
    if len(sizes) > 1:
        raise DataError(f"masks of {' and '.join(f'{height} x {width}' for height, width in sorted(sizes))} pixels")
    if not found.size:
        return found
    rows, columns = np.nonzero(np.ones(found.shape, bool) if wanted is None else wanted)
    boxes, other_boxes = _boxes_of(many), _boxes_of(others)
    low = np.maximum(boxes[rows, :2], other_boxes[columns, :2])
    high = np.minimum(boxes[rows, 2:], other_boxes[columns, 2:])
    meets = (low < high).all(axis=1)
    rows, columns = rows[meets], columns[meets]
    if not rows.size:
        return found
    below = _Below(others)
    lengths = np.array([one.ends[0].size for one in many])
    starts = np.concatenate([one.ends[0] for one in many])
    stops = np.concatenate([one.ends[1] for one in many])
    firsts = np.cumsum(lengths) - lengths
    walked = np.cumsum(lengths[rows])
    begin = 0
    while begin < rows.size:
        before = int(walked[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(walked, before + PIECE, side="right")))
        row, column = rows[begin:end], columns[begin:end]
        runs = lengths[row]
        first = np.cumsum(runs) - runs
        index = np.arange(int(runs.sum())) + np.repeat(firsts[row] - first, runs)
        mask = np.repeat(column, runs)
        common = below(mask, stops[index]) - below(mask, starts[index])
        found[row, column] = np.add.reduceat(common, first)
        begin = end
    return found


def _boxes_of(masks: Sequence[Rle]) -> np.ndarray:
    """Return (N, 4) rough boxes: the columns that each mask has, and all rows."""
    height = masks[0].size[0]
    ends = np.array([(one.ends[0][0], one.ends[1][-1]) if one.ends[0].size else (0, 0) for one in masks], np.int64)
    left, right = ends[:, 0] // height, -(-ends[:, 1] // height)
    return np.stack([np.zeros(len(masks), np.int64), left, np.full(len(masks), height), right], axis=1)


class _Below:
    """Tells of several masks how many of their pixels lie before a place of the order."""

    def __init__(self, masks: Sequence[Rle]):
        lengths = np.array([one.ends[0].size for one in masks])
        self.step = masks[0].size[0] * masks[0].size[1] + 1
        self.first = np.cumsum(lengths) - lengths
        offset = np.repeat(np.arange(len(masks)) * self.step, lengths)
        self.starts = np.concatenate([one.ends[0] for one in masks]) + offset
        self.stops = np.concatenate([one.ends[1] for one in masks]) + offset
        self.total = np.concatenate([[0], np.cumsum(self.stops - self.starts)])

    def __call__(self, masks: np.ndarray, places: np.ndarray) -> np.ndarray:
        keys = masks * self.step + places
        runs = np.searchsorted(self.starts, keys)  # runs of this and earlier masks that begin before the place
        own = self.total[runs] - self.total[self.first[masks]]
        begun = runs > self.first[masks]
        return own - np.where(begun, np.maximum(self.stops[runs - 1] - keys, 0), 0)


def ious(
    many: Sequence[Rle], others: Sequence[Rle], crowd: Sequence[bool] = (), wanted: np.ndarray | None = None
) -> np.ndarray:
    """Return (P, T) float64: intersection over union; over the first mask's own area where the other is a crowd.

    Args:
        many: P masks, such as found ones.
        others: T masks of the same size, such as true ones.
        crowd: of the others, which are several objects; () = none.
        wanted: (P, T) bool, the pairs that are looked at, the others are 0; None = all.
    """
    common = intersections(many, others, wanted)
    areas = np.array([one.area for one in many], np.int64)[:, None]
    whole = areas + np.array([one.area for one in others], np.int64)[None] - common
    if len(crowd):
        whole = np.where(np.asarray(crowd, bool)[None], areas, whole)
    shared: np.ndarray = np.divide(common, whole, out=np.zeros(common.shape), where=whole > 0)
    return shared


def _frozen(counts: Any) -> np.ndarray:
    array = np.array(counts, np.uint32)
    array.flags.writeable = False
    return array


def _listed(given: Any) -> np.ndarray:
    try:
        counts = np.asarray(given)
        if counts.ndim == 1 and (counts.dtype.kind in "iu" or not counts.size):
            return counts.astype(np.int64)
    except (ValueError, OverflowError):
        pass
    raise DataError("the counts of a run-length code are no list of whole numbers")


def _packed(counts: np.ndarray) -> bytes:
    """Return COCO's text: from the fourth on, differences to the last but one; five bits a letter, low ones first."""
    values = counts.copy()
    values[3:] -= counts[1:-2]
    letters, used, left = [], [], values
    going = np.ones(values.size, bool)
    for _ in range(_LONGEST):
        low, left = left & 31, left >> 5
        more = np.where(low & 16, left != -1, left != 0)
        letters.append(low + np.where(more, 32, 0) + 48)
        used.append(going)
        going = going & more
    return np.stack(letters, axis=1)[np.stack(used, axis=1)].astype(np.uint8).tobytes()


def _unpacked(text: str | bytes) -> np.ndarray:
    """Return the lengths that COCO's text stands for."""
    raw = text.encode("utf-8", "replace") if isinstance(text, str) else text
    letters = np.frombuffer(raw, np.uint8).astype(np.int64) - 48
    if not letters.size:
        return letters
    last = letters & 32 == 0
    if letters.min() < 0 or letters.max() > 63 or not last[-1]:
        raise DataError("the counts of a run-length code are no text that COCO writes")
    ends = np.flatnonzero(last)
    first = np.concatenate([[0], ends[:-1] + 1])
    length = ends - first + 1
    if length.max() > _LONGEST:
        raise DataError("a run-length code with a run that no image has")
    place = np.arange(letters.size) - np.repeat(first, length)
    values = np.add.reduceat((letters & 31) << (5 * place), first)
    values -= np.where(letters[ends] & 16, np.int64(1) << (5 * length), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
