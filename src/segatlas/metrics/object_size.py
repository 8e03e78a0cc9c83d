"""Recall by the size of the objects in the truth, with COCO's bounds: small < 32 x 32 <= medium < 96 x 96 <= large."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segatlas.metrics.label_maps import label_maps
from segatlas.metrics.metric import Metric, Prediction, Rows
from segatlas.metrics.number import Number
from segatlas.metrics.ratios import floats, ratio
from segatlas.metrics.sums import Sums

if TYPE_CHECKING:
    from segatlas.structures import SemanticTarget

SIZES = ("small", "medium", "large")
BOUNDS = (32 * 32, 96 * 96)
"""Smallest number of pixels of a medium and of a large object."""


def size_counts(prediction: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """Count objects and their pixels by size.

    An object is an 8-connected region of one class in the truth (touching objects of one class count as one: a semantic
    label cannot tell them apart). Its size is its number of pixels in the label's own resolution.

    Args:
        prediction: (H, W) uint8.
        label: (H, W) uint8, 0..K-1; higher values are left out.
        num_classes: K.

    Returns:
        (K, 3, 3) int64: class x (small, medium, large) x (objects, their pixels, those of them predicted right).
    """
    counts = np.zeros((num_classes, len(SIZES), 3), np.int64)
    starts, lengths = _runs(label)
    if not len(starts):
        return counts
    right = np.add.reduceat((prediction == label).ravel(), starts, dtype=np.int32)
    classes = label.ravel()[starts]
    first = _first_of_each(len(starts), *_touching(starts, lengths, classes, label.shape))
    size, hit = (np.bincount(first, weights=values, minlength=len(starts)) for values in (lengths, right))
    objects = np.flatnonzero((first == np.arange(len(starts))) & (classes < num_classes))
    place = classes[objects].astype(np.int64) * len(SIZES) + np.digitize(size[objects], BOUNDS)
    for column, amount in enumerate((None, size[objects], hit[objects])):
        summed = np.bincount(place, weights=amount, minlength=num_classes * len(SIZES))
        counts[:, :, column] = summed.reshape(num_classes, len(SIZES))
    return counts


def _runs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first pixels of the runs of one value within each row, counted row after row, and their lengths."""
    change = np.ones(labels.shape, np.bool_)
    np.not_equal(labels[:, 1:], labels[:, :-1], out=change[:, 1:])
    starts = np.flatnonzero(change)
    return starts, np.diff(starts, append=labels.size)


def _touching(
    starts: np.ndarray, lengths: np.ndarray, classes: np.ndarray, size: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs of runs of one class that touch, corners too, the lower row's second: their numbers, (E,) each."""
    rows, columns = np.divmod(starts, size[1])
    upper = int(np.searchsorted(rows, size[0] - 1))  # runs that have a row below them
    below = (rows[:upper] + 1) * size[1]
    left, right = np.maximum(columns[:upper] - 1, 0), np.minimum(columns[:upper] + lengths[:upper], size[1] - 1)
    begin, end = np.searchsorted(starts, below + left, "right") - 1, np.searchsorted(starts, below + right, "right")
    one = np.repeat(np.arange(upper), end - begin)
    nth = np.arange(len(one)) - np.repeat(np.cumsum(end - begin) - (end - begin), end - begin)
    other = begin[one] + nth
    same = classes[one] == classes[other]
    return one[same], other[same]


def _first_of_each(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return for each of `count` runs the lowest number among those that pairs connect it with, itself included."""
    first = np.arange(count)
    while len(one):
        a, b = first[one], first[other]
        apart = a != b
        one, other, a, b = one[apart], other[apart], a[apart], b[apart]
        np.minimum.at(first, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(first, nearer := first[first]):
            first = nearer
    return first


class ObjectSize(Sums):
    """Counts objects of the truth and their pixels by size."""

    def __init__(self, classes: Sequence[str]):
        super().__init__(sizes=(len(classes), len(SIZES), 3))

    def update(self, result: Prediction, target: SemanticTarget) -> float:
        """Count one image; it has no score of its own."""
        count = len(self.counts["sizes"])
        self.counts["sizes"] += size_counts(*label_maps(result, target, count), count)
        return math.nan

    def compute(self) -> Rows:
        """Return the numbers of `METRIC`: each of a class, and of all classes together."""
        per_class, whole = _by_size(self.counts["sizes"]), _by_size(self.counts["sizes"].sum(0, keepdims=True))
        return Rows(per_class=per_class, whole={name: values[0] for name, values in whole.items()})


def _by_size(counts: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Return recall and number of objects by size from (K, 3, 3) counts, each a tuple of K values."""
    recall = ratio(counts[..., 2], counts[..., 1])
    columns = {f"recall_{size}": floats(recall[:, index]) for index, size in enumerate(SIZES)}
    return columns | {f"objects_{size}": tuple(counts[:, index, 0].tolist()) for index, size in enumerate(SIZES)}


def _recall(size: str, definition: str) -> Number:
    name = f"recall_{size}"
    title, counted = f"recall, {size} objects", f"objects_{size}"
    return Number(name=name, heading=size, title=title, last_line=name, counted=counted, definition=definition)


def _objects(size: str) -> Number:
    definition = f"Number of {size} objects in the truth (bounds as in recall_{size})."
    return Number(name=f"objects_{size}", format="count", unit="object", definition=definition)


METRIC = Metric(
    name="object_size",
    title="recall by the size of objects",
    accumulator=ObjectSize,
    switch="sizes",
    numbers=(
        _recall(
            "small",
            "Fraction of the pixels of small objects (8-connected regions of one class in the truth, under 32 x 32 = "
            "1024 pixels) that were predicted right; of one class, or of all classes together.",
        ),
        _recall("medium", "As recall_small, for objects of 1024 to 9215 pixels (under 96 x 96)."),
        _recall("large", "As recall_small, for objects of 9216 pixels or more."),
        *(_objects(size) for size in SIZES),
    ),
)
