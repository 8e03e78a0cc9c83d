"""IoU and recall by the size of objects: by default COCO's bounds, small < 32 x 32 <= medium < 96 x 96 <= large.

A semantic label knows no objects, so an object is an 8-connected region of one class. Each pixel counts at one size: a
pixel of the truth at that of its region there, a pixel wrongly predicted as a class at that of the predicted region
that it lies in. So the three sizes of a class add up to its TP, FN and FP in the confusion matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segatlas.config.plain import size_bounds_fault
from segatlas.errors import UsageError
from segatlas.metrics.label_maps import label_maps
from segatlas.metrics.metric import Metric, Prediction, Rows
from segatlas.metrics.number import Number
from segatlas.metrics.ratios import floats, mean, ratio
from segatlas.metrics.sums import Sums

if TYPE_CHECKING:
    from segatlas.structures import SemanticTarget

SIZES = ("small", "medium", "large")
BOUNDS = (32 * 32, 96 * 96)
"""Smallest number of pixels of a medium and of a large object."""

OBJECTS, PIXELS, HIT, FALSE = range(4)
"""What is counted of a class and size: objects, their pixels, those of them predicted right; pixels that were wrongly
predicted as the class, by the size of the predicted region."""


def size_counts(
    prediction: np.ndarray, label: np.ndarray, num_classes: int, bounds: Sequence[float] = BOUNDS
) -> np.ndarray:
    """Count objects and pixels by size.

    An object is an 8-connected region of one class in the truth (touching objects of one class count as one: a semantic
    label cannot tell them apart). Its size is its number of pixels in the label's own resolution.

    Args:
        prediction: (H, W) uint8, ignored where the label is.
        label: (H, W) uint8, 0..K-1; higher values are left out.
        num_classes: K.
        bounds: of medium and of large, in pixels; a number below 1 is a fraction of the H x W pixels.

    Returns:
        (K, 3, 4) int64: class x (small, medium, large) x (OBJECTS, PIXELS, HIT, FALSE).
    """
    limits = [bound * label.size if bound < 1 else bound for bound in bounds]
    right = prediction == label
    counts = np.zeros((num_classes, len(SIZES), 4), np.int64)
    counts[..., :FALSE] = _by_region(label, right, num_classes, limits)
    if not right.all():
        found = _by_region(prediction, ~right, num_classes, limits)
        counts[..., FALSE] = found[..., HIT]
    return counts


def _by_region(labels: np.ndarray, chosen: np.ndarray, num_classes: int, limits: Sequence[float]) -> np.ndarray:
    """Return by class and size (K, 3, 3): regions of (H, W) labels, their pixels, and how many of these are chosen."""
    counts = np.zeros((num_classes, len(SIZES), 3), np.int64)
    starts, lengths = _runs(labels)
    if not len(starts):
        return counts
    amount = np.add.reduceat(chosen.ravel(), starts, dtype=np.int32)
    classes = labels.ravel()[starts]
    first = _first_of_each(len(starts), *_touching(starts, lengths, classes, labels.shape))
    size, hit = (np.bincount(first, weights=values, minlength=len(starts)) for values in (lengths, amount))
    objects = np.flatnonzero((first == np.arange(len(starts))) & (classes < num_classes))
    place = classes[objects].astype(np.int64) * len(SIZES) + np.digitize(size[objects], limits)
    for column, weights in enumerate((None, size[objects], hit[objects])):
        summed = np.bincount(place, weights=weights, minlength=num_classes * len(SIZES))
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
    """Counts objects of the truth and pixels by size.

    Raises UsageError for `size_bounds` that are no two rising numbers.
    """

    def __init__(self, classes: Sequence[str], size_bounds: Sequence[float] = BOUNDS):
        super().__init__(sizes=(len(classes), len(SIZES), 4))
        self.bounds = tuple(size_bounds)
        if fault := size_bounds_fault(self.bounds):
            raise UsageError(f"eval.size_bounds: got {', '.join(f'{bound:g}' for bound in self.bounds)}; {fault}")

    def update(self, result: Prediction, target: SemanticTarget) -> float:
        """Count one image; it has no score of its own."""
        count = len(self.counts["sizes"])
        self.counts["sizes"] += size_counts(*label_maps(result, target, count), count, self.bounds)
        return math.nan

    def compute(self) -> Rows:
        """Return the numbers of `METRIC`: each of a class, and of all classes together."""
        counts = self.counts["sizes"]
        per_class, whole = _by_size(counts), _by_size(counts.sum(0, keepdims=True))
        means = {f"iou_{size}": mean_iou(counts[:, index]) for index, size in enumerate(SIZES)}
        setting = "" if self.bounds == BOUNDS else f"medium objects from {text_of(self.bounds[0])}, large ones from "
        return Rows(
            per_class=per_class,
            whole={name: values[0] for name, values in whole.items()} | means,
            setting=setting and setting + text_of(self.bounds[1]),
        )


def text_of(bound: float) -> str:
    """Return a bound in words."""
    return f"{100 * bound:g} % of the image" if bound < 1 else f"{bound:g} pixels"


def iou_by_class(counts: np.ndarray) -> np.ndarray:
    """Return (..., K) IoU of (..., K, 4) counts of one size; NaN for a class without an object of that size."""
    iou = ratio(counts[..., HIT], counts[..., PIXELS] + counts[..., FALSE])
    iou[counts[..., OBJECTS] == 0] = math.nan
    return iou


def mean_iou(counts: np.ndarray) -> float:
    """Return the mean IoU of (K, 4) counts of one size, over the classes that have objects of it."""
    return mean(iou_by_class(counts))


def _by_size(counts: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Return IoU, recall and number of objects by size from (K, 3, 4) counts, each a tuple of K values."""
    recall = ratio(counts[..., HIT], counts[..., PIXELS])
    columns = {f"recall_{size}": floats(recall[:, index]) for index, size in enumerate(SIZES)}
    columns |= {f"iou_{size}": floats(iou_by_class(counts[:, index])) for index, size in enumerate(SIZES)}
    return columns | {f"objects_{size}": tuple(counts[:, index, OBJECTS].tolist()) for index, size in enumerate(SIZES)}


def _recall(size: str, definition: str) -> Number:
    name = f"recall_{size}"
    title, counted = f"recall, {size} objects", f"objects_{size}"
    return Number(name=name, heading=size, title=title, last_line=name, counted=counted, definition=definition)


def _iou(size: str) -> Number:
    definition = (
        f"Per class TP / (TP + FP + FN) of {size} objects (bounds as in recall_{size}): TP and FN are pixels of such "
        f"objects in the truth, FP pixels wrongly predicted as the class in {size} regions of the prediction; "
        f"undefined for a class without {size} objects, and the whole set's is the mean over the others."
    )
    return Number(name=f"iou_{size}", title=f"mean IoU, {size} objects", definition=definition)


def _objects(size: str) -> Number:
    definition = f"Number of {size} objects in the truth (bounds as in recall_{size})."
    return Number(name=f"objects_{size}", format="count", unit="object", definition=definition)


METRIC = Metric(
    name="object_size",
    title="IoU and recall by the size of objects",
    accumulator=ObjectSize,
    switch="sizes",
    options=("size_bounds",),
    numbers=(
        _recall(
            "small",
            "Fraction of the pixels of small objects (8-connected regions of one class in the truth, under the first "
            "of eval.size_bounds, by default 32 x 32 = 1024 pixels) that were predicted right; of one class, or of all "
            "classes together.",
        ),
        _recall("medium", "As recall_small, for objects from there to under the second bound, 96 x 96 = 9216 pixels."),
        _recall("large", "As recall_small, for objects of the second bound or more."),
        *(_iou(size) for size in SIZES),
        *(_objects(size) for size in SIZES),
    ),
)
