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
    import cv2  # here: listing records and reading recipes does without

    counts = np.zeros((num_classes, len(SIZES), 3), np.int64)
    starts, lengths = _runs(label)
    if not len(starts):
        return counts
    right = np.add.reduceat((prediction == label).ravel(), starts, dtype=np.int32)
    few = len(starts) < np.iinfo(np.uint16).max  # and so are objects
    kind = cv2.CV_16U if few else cv2.CV_32S
    buffer: np.ndarray = np.empty(label.size, np.uint16 if few else np.int32)
    classes, rows, columns = label.ravel()[starts], *np.divmod(starts, label.shape[1])
    for index in np.flatnonzero(np.bincount(classes, minlength=num_classes)[:num_classes]):
        own = np.flatnonzero(classes == index)
        mask = (label == index).view(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        window, place = mask[y : y + height, x : x + width], buffer[: height * width].reshape(height, width)
        found, objects = cv2.connectedComponents(window, place, 8, kind)  # new memory would cost as much again
        number = objects[rows[own] - y, columns[own] - x]  # of the object that each run belongs to, from 1
        size, hit = (np.bincount(number, weights=values[own], minlength=found)[1:] for values in (lengths, right))
        bucket = np.digitize(size, BOUNDS)
        for column, amount in enumerate((None, size, hit)):
            counts[index, :, column] = np.bincount(bucket, weights=amount, minlength=len(SIZES))
    return counts


def _runs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first pixels of the runs of one value within each row, counted row after row, and their lengths."""
    change = np.ones(labels.shape, np.bool_)
    np.not_equal(labels[:, 1:], labels[:, :-1], out=change[:, 1:])
    starts = np.flatnonzero(change)
    return starts, np.diff(starts, append=labels.size)


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
