"""Which found object takes which true one, at ten IoUs and four ranges of sizes, by COCO's rules.

At one IoU and range of sizes, each prediction by falling score takes the free true object with the highest IoU that
reaches the bound. True objects outside the range, and crowds, are taken only by a prediction that finds no other; it
counts nowhere then, nor does an unmatched prediction outside the range.

Letters: D predictions, G true objects, Q pairs of them, N objects of either side, T = 10 IoUs, A = 4 ranges of sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from segatlas.structures import Rle, SegmentsTarget
from segatlas.structures.rle import MaskRuns

if TYPE_CHECKING:
    from segatlas.structures import InstancesTarget

IOUS = np.linspace(0.5, 0.95, 10)
SIZES = ("all", "small", "medium", "large")
RANGES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]], np.float64)
"""Least and most area of each of SIZES, in pixels, both included."""

BITS = np.uint64(1) << np.arange(len(SIZES) * len(IOUS), dtype=np.uint64)
"""A bit for each size and IoU: all IoUs of the first size come first."""

BOUNDS = np.minimum(IOUS, 1 - 1e-10)
_REACHED = np.array(
    [sum((1 << reached) - 1 << len(IOUS) * size for size in range(4)) for reached in range(11)], np.uint64
)
"""How many IoUs a pair reaches -> their bits, of every size."""

_OUT = np.array(
    [sum(1023 << len(IOUS) * size for size in range(4) if flags >> size & 1) for flags in range(16)], np.uint64
)
"""Four flags, one a size -> the bits of all IoUs of these sizes."""


class TrueMasks(NamedTuple):
    """Objects of a truth. kinds: (G,) int64. crowd: (G,) bool."""

    masks: Sequence[Rle]
    kinds: np.ndarray
    crowd: np.ndarray


class FoundMasks(NamedTuple):
    """Objects of a prediction: masks, classes and scores."""

    masks: Sequence[Rle]
    kinds: Sequence[int]
    scores: Sequence[float]


ImageMasks = tuple[int, FoundMasks, TrueMasks]
"""Number of an image, what was found in it, and what is there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Objects:
    """Objects of several images. kinds: (N,). images: (N,) number of each one's image. scores: (N,), 0 of true ones."""

    masks: Sequence[Rle]
    kinds: np.ndarray
    images: np.ndarray
    scores: np.ndarray
    crowd: np.ndarray

    @cached_property
    def runs(self) -> MaskRuns:
        """Their masks, end to end."""
        return MaskRuns(self.masks)

    @cached_property
    def out(self) -> np.ndarray:
        """(N, A) bool: the area is not in the range, or it is a crowd."""
        found: np.ndarray = outside(self.runs.areas) | self.crowd[:, None]
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectPairs:
    """Found with true objects. rows: (Q,) of found ones. columns: (Q,) of true ones. shared: (Q,) IoUs."""

    rows: np.ndarray
    columns: np.ndarray
    shared: np.ndarray

    def where(self, chosen: np.ndarray) -> ObjectPairs:
        """Return some of them. chosen: (Q,) bool."""
        return ObjectPairs(rows=self.rows[chosen], columns=self.columns[chosen], shared=self.shared[chosen])


def outside(areas: np.ndarray) -> np.ndarray:
    """Return (N, A) bool: the area is not in the range."""
    found: np.ndarray = (areas[:, None] < RANGES[None, :, 0]) | (areas[:, None] > RANGES[None, :, 1])
    return found


def match(pairs: ObjectPairs, found: Objects, true: Objects, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Match predictions to true objects, in each image by falling score.

    Args:
        pairs: those that may match.
        found: D predictions.
        true: G true objects; of equal IoUs the last one of the highest class is taken.
        place: (D,) when each prediction has its turn.

    Returns:
        (D,) uint64 twice, a bit for each size and IoU: matched; counts nowhere.
    """
    flags = 1 << np.arange(len(SIZES))
    out, hidden = _OUT[found.out @ flags], _OUT[true.out @ flags]
    matched, ignored = np.zeros(len(out), np.uint64), out.copy()
    near = pairs.where(pairs.shared >= BOUNDS[0])
    rows, columns = near.rows, near.columns
    reached = _REACHED[np.searchsorted(BOUNDS, near.shared, side="right")]
    of_row, of_column = np.bincount(rows, minlength=len(out)), np.bincount(columns, minlength=len(hidden))
    alone = (of_row[rows] == 1) & ((of_column[columns] == 1) | true.crowd[columns])
    single, own = rows[alone], columns[alone]
    matched[single] = reached[alone]
    ignored[single] = (hidden[own] & reached[alone]) | (out[single] & ~reached[alone])
    shown = np.flatnonzero(~alone)
    order = np.lexsort((-columns[shown], -true.kinds[columns[shown]], -near.shared[shown], place[rows[shown]]))
    shown = shown[order]
    turns = zip(rows[shown].tolist(), columns[shown].tolist(), reached[shown].tolist(), strict=True)
    taken, hidden_bits, out_bits, is_crowd = [0] * len(hidden), hidden.tolist(), out.tolist(), true.crowd.tolist()
    for row, near_ones in groupby(turns, key=itemgetter(0)):
        free = [(column, bits if is_crowd[column] else bits & ~taken[column]) for _, column, bits in near_ones]
        hits, left_out = 0, out_bits[row]
        for column, bits in free:
            takes = bits & ~hidden_bits[column] & ~hits
            taken[column] |= takes
            hits |= takes
        left_out &= ~hits
        for column, bits in free:  # what counts nowhere is taken by who finds no other
            if takes := bits & hidden_bits[column] & ~hits:
                taken[column] |= takes
                hits |= takes
                left_out |= takes
        matched[row], ignored[row] = hits, left_out
    return matched, ignored


def together(waiting: Sequence[ImageMasks]) -> tuple[Objects, Objects]:
    """Return the found and the true objects of several images."""
    numbers, founds, truths = zip(*waiting, strict=True)
    scores = np.array([*chain(*(one.scores for one in founds))], np.float64)
    found = Objects(
        masks=[*chain(*(one.masks for one in founds))],
        kinds=np.array([*chain(*(one.kinds for one in founds))], np.int64),
        images=np.repeat(numbers, [len(one.masks) for one in founds]),
        scores=scores,
        crowd=np.zeros(len(scores), bool),
    )
    kinds = np.concatenate([one.kinds for one in truths])
    true = Objects(
        masks=[*chain(*(one.masks for one in truths))],
        kinds=kinds,
        images=np.repeat(numbers, [len(one.masks) for one in truths]),
        scores=np.zeros(len(kinds)),
        crowd=np.concatenate([one.crowd for one in truths]),
    )
    return found, true


def joined_by(keys: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return places (Q,) in both of all pairs that have one key, from keys (D,) and (G,)."""
    order = np.argsort(others, kind="stable")
    begin = np.searchsorted(others[order], keys, side="left")
    counts = np.searchsorted(others[order], keys, side="right") - begin
    rows = np.repeat(np.arange(len(keys)), counts)
    first = np.cumsum(counts) - counts
    return rows, order[np.arange(len(rows)) + np.repeat(begin - first, counts)]


def objects_of(target: InstancesTarget | SegmentsTarget) -> TrueMasks:
    """Return the true objects; of segments those that are things."""
    classes, crowd = np.asarray(target.classes, np.int64), np.asarray(target.crowd).astype(bool)
    if not isinstance(target, SegmentsTarget):
        masks = [one if isinstance(one, Rle) else Rle.of(np.asarray(one)) for one in target.masks]
        return TrueMasks(masks, classes, crowd)
    ids, rows = np.asarray(target.ids), np.flatnonzero(np.asarray(target.things))
    masks = [Rle.of(ids == row) for row in rows]
    return TrueMasks(masks, classes[rows], crowd[rows])
