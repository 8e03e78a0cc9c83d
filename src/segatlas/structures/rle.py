"""Masks as lengths of runs: what an object is kept as, with holes and in several parts, a hundredth of its bitmap.

The order is COCO's: pixels go down the columns, left to right; the first run is of zeros and may be empty.

Letters: H, W image, R runs, P and T masks of two groups, Q pairs.
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


class MaskRuns:
    """Many masks, which may differ in size, so that they can be asked all at once. Letters: N masks, Q pairs of them.

    areas: (N,) int64 pixels. left, right: (N,) the first column with a pixel, and the one behind the last.
    """

    def __init__(self, masks: Sequence[Rle]):
        self._counts = [one.counts for one in masks]
        sizes = np.array([one.size for one in self._counts], np.int64)
        height, width = np.array([one.size for one in masks], np.int64).reshape(-1, 2).T
        self._pixels, self._ends = height * width, sizes + (sizes & 1)
        flat, first = _end_to_end(self._counts), np.cumsum(self._ends) - self._ends
        self.areas = np.add.reduceat(flat[1::2], first // 2, dtype=np.int64) if masks else sizes
        begin, rest = flat[first].astype(np.int64), flat[first + sizes - 1].astype(np.int64)
        self.left = begin // height
        self.right = -((rest * (sizes & 1) - self._pixels) // height)

    def common(self, rows: np.ndarray, others: MaskRuns, columns: np.ndarray) -> np.ndarray:
        """Return (Q,) int64, the pixels that masks (Q,) and masks (Q,) of others have in common, pair by pair.

        Masks of a pair are of one size. Along a mask the pixels that it has had so far grow by one a pixel inside and
        by none outside: what lies in a run of another is the difference of two values on that line.
        """
        found = np.zeros(len(rows), np.int64)
        low, high = (
            np.maximum(self.left[rows], others.left[columns]),
            np.minimum(self.right[rows], others.right[columns]),
        )
        meets = np.flatnonzero(low < high)
        if not meets.size:
            return found
        (ends, first, base, row), (line, _, other_base, column) = self._some(rows[meets]), others._some(columns[meets])
        had = np.zeros(len(line))
        np.cumsum(line[1::2] - line[::2], out=had[1::2])
        had[2::2] = had[1:-1:2]
        lengths = self._ends[rows[meets]]
        walked = np.cumsum(lengths)
        begin = 0
        while begin < len(meets):
            before = int(walked[begin - 1]) if begin else 0
            stop = max(begin + 1, int(np.searchsorted(walked, before + PIECE, side="right")))
            part = slice(begin, stop)
            start = walked[part] - lengths[part] - before
            places = ends[
                np.arange(int(walked[stop - 1]) - before) + np.repeat(first[row[part]] - start, lengths[part])
            ]
            places += np.repeat(other_base[column[part]] - base[row[part]], lengths[part])
            values = np.interp(places, line, had)
            found[meets[part]] = np.add.reduceat(values[1::2] - values[::2], start // 2)
            begin = stop
        return found

    def _some(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return of the asked masks (Q,) the ends of runs, as if those that occur were one after the other.

        Returns: the ends, float64, in which any place is exact; where those of each mask begin; the place at which each
            mask begins; which of these masks is asked each time (Q,).
        """
        used, place = np.unique(asked, return_inverse=True)
        lengths, pixels = self._ends[used], self._pixels[used]
        ends = np.cumsum(_end_to_end([self._counts[one] for one in used.tolist()]), dtype=np.float64)
        return ends, np.cumsum(lengths) - lengths, np.cumsum(pixels) - pixels, place


_NO_RUN = np.zeros(1, np.uint32)


def _end_to_end(counts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the lengths of runs of several masks, an empty run after those that end outside: outside, inside, ..."""
    parts = []
    for one in counts:
        parts.append(one)
        if one.size & 1:
            parts.append(_NO_RUN)
    return np.concatenate(parts) if parts else _NO_RUN[:0]


def pair_ious(
    many: MaskRuns, rows: np.ndarray, others: MaskRuns, columns: np.ndarray, crowd: np.ndarray | None = None
) -> np.ndarray:
    """Return (Q,) float64 of pairs of masks: intersection over union; over the first's own area at a crowd.

    Args:
        many: masks, such as found ones.
        rows: (Q,) the first of each pair, among many.
        others: masks, such as true ones.
        columns: (Q,) the second of each pair, among others, of the first's size.
        crowd: (T,) bool of the others, which are several objects; None = none.
    """
    common = many.common(rows, others, columns)
    whole = many.areas[rows]
    over = whole + others.areas[columns] - common
    if crowd is not None:
        over = np.where(crowd[columns], whole, over)
    shared: np.ndarray = np.divide(common, over, out=np.zeros(len(common)), where=over > 0)
    return shared


def ious(many: Sequence[Rle], others: Sequence[Rle], crowd: Sequence[bool] = ()) -> np.ndarray:
    """Return (P, T) float64, the IoU of each of P masks with each of T others, see `pair_ious`.

    Raises:
        DataError: the masks differ in size.
    """
    check_sizes((*many, *others))
    rows, columns = np.divmod(np.arange(len(many) * len(others)), max(len(others), 1))
    flags = np.asarray(crowd, bool) if len(crowd) else None
    return pair_ious(MaskRuns(many), rows, MaskRuns(others), columns, flags).reshape(len(many), len(others))


def check_sizes(masks: Sequence[Rle]) -> None:
    """Raise DataError where masks differ in size."""
    sizes = {one.size for one in masks}
    if len(sizes) > 1:
        raise DataError(f"masks of {' and '.join(f'{height} x {width}' for height, width in sorted(sizes))} pixels")


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
