"""The two label maps that semantic metrics compare, checked: values that name no class are an error, never wrapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from segatlas.errors import DataError
from segatlas.labels import IGNORE, MAX_CLASSES
from segatlas.metrics.metric import Prediction

if TYPE_CHECKING:
    from segatlas.structures import SemanticTarget

EXACT = 1 << 24
"""Pixels that cv2 counts at once: its counts are float32, exact up to here."""


def label_maps(result: Prediction, target: SemanticTarget, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return prediction and label, (H, W) uint8 of values 0..K-1 or 255; both are 255 where the label is.

    Where a pixel has one of the classes that were not annotated in its image, it is not known which, and it is ignored.

    Raises:
        DataError: the two differ in size, or a value names no class.
    """
    if num_classes > MAX_CLASSES:
        raise ValueError(f"{num_classes} classes; at most {MAX_CLASSES} can be told from {IGNORE}, which is ignored")
    prediction, label = _as_numpy(result.semantic), _as_numpy(_certain(target))
    if prediction.shape != label.shape or prediction.ndim != 2:
        raise DataError(f"prediction {prediction.shape} and label {label.shape} must be (H, W) of one size")
    label = _as_uint8(label, num_classes, "label")
    # What is predicted on ignored pixels must not count anywhere, so it is ignored too.
    ignored = label == IGNORE
    if prediction.dtype == np.uint8:  # a tenth of the time: 255 has all bits
        prediction = prediction | np.negative(ignored.view(np.uint8))
    else:
        prediction = np.where(ignored, IGNORE, prediction)
    return _as_uint8(prediction, num_classes, "prediction"), label


def _certain(target: SemanticTarget) -> Any:
    """Return the labels, without those of classes that were not annotated; maps of other truths have all classes."""
    return target.labels if getattr(target, "annotated", None) is None else target.certain


def histogram(values: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
    """Return how often each value 0..255 occurs among the chosen pixels of a (H, W) uint8 map, (256,) int64."""
    import cv2  # here: listing records and reading recipes does without

    counts = np.zeros(256, np.int64)
    rows = max(1, EXACT // max(1, values.shape[1]))
    for first in range(0, len(values), rows):
        mask = None if chosen is None else chosen[first : first + rows].view(np.uint8)
        found = cv2.calcHist([values[first : first + rows]], [0], mask, [256], [0, 256])
        counts += found.ravel().astype(np.int64)
    return counts


def _as_numpy(array: Any) -> np.ndarray:
    """Return an array; a tensor is known by its method, because torch may not be loaded."""
    return np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)


def _as_uint8(numbers: np.ndarray, num_classes: int, what: str) -> np.ndarray:
    wrong = (numbers != IGNORE) & ((numbers < 0) | (numbers >= num_classes))
    if wrong.any():
        raise DataError(f"{what} holds value {numbers[wrong].flat[0]}; expected 0..{num_classes - 1} or {IGNORE}")
    return np.ascontiguousarray(numbers, dtype=np.uint8)
