"""Semantic metrics: sums of pixel counts while images come in, numbers at the end.

Everything is a function of int64 counts that add up, so memory does not grow with the set, the order of the images
does not matter, and the counts of several processes may be summed. What each number means: `metrics.definitions`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from segatlas.errors import DataError
from segatlas.metrics.boundaries import boundary_counts, boundary_reach, contour_counts
from segatlas.metrics.object_sizes import SIZES, size_counts
from segatlas.ops import confusion
from segatlas.structures import IGNORE

PerClass = tuple[float, ...]
Array = np.ndarray | Tensor


@dataclass(frozen=True, kw_only=True)
class SemanticScores:
    """All numbers of one evaluation, as fractions 0..1. NaN = undefined. Tuples hold one value a class.

    `boundary_iou`, `boundary_f` and `size_counts` are None where they were not asked for. `size_counts` is
    (K, 3, 3): class x (small, medium, large) x (objects, their pixels, those of them predicted right).
    """

    classes: tuple[str, ...]
    images: int
    iou: PerClass
    dice: PerClass
    precision: PerClass
    recall: PerClass
    support: tuple[int, ...]
    predicted: tuple[int, ...]
    miou: float
    miou_ground_truth_only: float
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float
    mean_dice: float
    kappa: float
    boundary_iou: PerClass | None = None
    boundary_f: PerClass | None = None
    size_counts: tuple[tuple[tuple[int, int, int], ...], ...] | None = None

    def summary(self) -> dict[str, float | int]:
        """Return the numbers about the whole set by name."""
        names = ("miou", "miou_ground_truth_only", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
        numbers: dict[str, float | int] = {name: getattr(self, name) for name in (*names, "mean_dice", "kappa")}
        if self.boundary_iou is not None and self.boundary_f is not None:
            numbers["mean_boundary_iou"] = _mean(self.boundary_iou)
            numbers["mean_boundary_f"] = _mean(self.boundary_f)
        if self.size_counts is not None:
            numbers |= _size_row(np.sum(self.size_counts, axis=0))
        return numbers | {"images": self.images}

    def per_class(self) -> list[dict[str, Any]]:
        """Return one row a class: its name under "class", then its numbers by name."""
        columns: dict[str, Sequence[float]] = {
            name: getattr(self, name) for name in ("iou", "dice", "precision", "recall", "support", "predicted")
        }
        if self.boundary_iou is not None and self.boundary_f is not None:
            columns |= {"boundary_iou": self.boundary_iou, "boundary_f": self.boundary_f}
        rows = []
        for index, name in enumerate(self.classes):
            row: dict[str, Any] = {"class": name} | {key: column[index] for key, column in columns.items()}
            if self.size_counts is not None:
                row |= _size_row(np.asarray(self.size_counts[index]))
            rows.append(row)
        return rows


class SemanticMetrics:
    """Takes one image at a time; `compute` may be asked at any moment.

    Args:
        classes: names of the K classes, at most 255.
        ignore: label value that means ignore; such pixels are left out of everything.
        boundary: also boundary IoU and boundary F-score.
        boundary_width: width of the boundary region as a fraction of the image's diagonal.
        sizes: also recall of small, medium and large objects.
    """

    def __init__(
        self,
        classes: Sequence[str],
        ignore: int = IGNORE,
        boundary: bool = True,
        boundary_width: float = 0.02,
        sizes: bool = True,
    ):
        if not len(classes) <= ignore <= 255:
            raise ValueError(f"ignore = {ignore} must lie between the number of classes ({len(classes)}) and 255")
        self.classes = tuple(classes)
        self.ignore = ignore
        self.boundary_width = boundary_width
        count = len(self.classes)
        shapes: dict[str, tuple[int, ...]] = {"confusion": (count, count), "images": (1,)}
        if boundary:
            shapes |= {"boundary": (count, 3), "contour": (count, 4)}
        if sizes:
            shapes["sizes"] = (count, len(SIZES), 3)
        self._state = {name: np.zeros(shape, np.int64) for name, shape in shapes.items()}

    def update(self, prediction: Array, label: Array) -> np.ndarray:
        """Count one image.

        Args:
            prediction: (H, W) integers 0..K-1; any value where the label is `ignore`.
            label: (H, W) integers 0..K-1 or `ignore`.

        Returns:
            (K, K) int64, this image's own confusion matrix: rows truth, columns prediction.

        Raises:
            DataError: the two differ in size, or a value names no class.
        """
        if tuple(prediction.shape) != tuple(label.shape) or prediction.ndim != 2:
            raise DataError(
                f"prediction {tuple(prediction.shape)} and label {tuple(label.shape)} must be (H, W) of one size"
            )
        count = len(self.classes)
        label = _as_uint8(label, count, "label", self.ignore)
        # What is predicted on ignored pixels must not count anywhere, so it is ignored too.
        prediction = np.where(label == self.ignore, self.ignore, _as_numpy(prediction))
        prediction = _as_uint8(prediction, count, "prediction", self.ignore)
        image = np.asarray(confusion(prediction, label, count, self.ignore))
        self._state["confusion"] += image
        self._state["images"] += 1
        if "boundary" in self._state:
            width = boundary_reach(label.shape, self.boundary_width)
            self._state["boundary"] += boundary_counts(prediction, label, count, width, self.ignore)
            self._state["contour"] += contour_counts(prediction, label, count, width, self.ignore)
        if "sizes" in self._state:
            self._state["sizes"] += size_counts(prediction, label, count)
        return image

    def state(self) -> dict[str, np.ndarray]:
        """Return a copy of the counts, int64 arrays by name; those of several processes may be added up."""
        return {name: array.copy() for name, array in self._state.items()}

    def merge(self, state: Mapping[str, np.ndarray]) -> None:
        """Add the counts of another object made with the same arguments."""
        if {name: array.shape for name, array in state.items()} != {n: a.shape for n, a in self._state.items()}:
            raise ValueError(f"state holds {sorted(state)}, expected {sorted(self._state)} of the same shapes")
        for name, array in self._state.items():
            array += state[name]

    def compute(self) -> SemanticScores:
        """Return all numbers for the images counted so far."""
        matrix = self._state["confusion"]
        right, truth, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
        total = int(matrix.sum())
        iou = _ratio(right, truth + predicted - right)
        dice = _ratio(2 * right, truth + predicted)
        recall = _ratio(right, truth)
        accuracy = _number(_ratio(right.sum(), total))
        # float64 before the product: int64 would overflow from about 3 billion pixels on.
        expected = float(_ratio((truth.astype(np.float64) * predicted).sum(), float(total) ** 2))
        extra: dict[str, Any] = {}
        if "boundary" in self._state:
            extra = {"boundary_iou": self._boundary_iou(), "boundary_f": self._boundary_f()}
        if "sizes" in self._state:
            extra["size_counts"] = tuple(tuple(map(tuple, rows)) for rows in self._state["sizes"].tolist())
        return SemanticScores(
            classes=self.classes,
            images=int(self._state["images"][0]),
            iou=_floats(iou),
            dice=_floats(dice),
            precision=_floats(_ratio(right, predicted)),
            recall=_floats(recall),
            support=tuple(truth.tolist()),
            predicted=tuple(predicted.tolist()),
            miou=_mean(iou),
            miou_ground_truth_only=_mean(iou[truth > 0]),
            pixel_accuracy=accuracy,
            mean_accuracy=_mean(recall),
            frequency_weighted_iou=float(np.nansum(iou * truth) / total) if total else math.nan,
            mean_dice=_mean(dice),
            kappa=(accuracy - expected) / (1 - expected) if expected < 1 else math.nan,
            **extra,
        )

    def _boundary_iou(self) -> PerClass:
        both, truth, predicted = self._state["boundary"].T
        return _floats(_ratio(both, truth + predicted - both))

    def _boundary_f(self) -> PerClass:
        true, true_matched, predicted, predicted_matched = self._state["contour"].T
        # nan_to_num: with contours on one side only, nothing matches and the score is 0.
        precision = np.nan_to_num(_ratio(predicted_matched, predicted))
        recall = np.nan_to_num(_ratio(true_matched, true))
        score = np.nan_to_num(_ratio(2 * precision * recall, precision + recall))
        return _floats(np.where(true + predicted > 0, score, math.nan))


def mean_iou(matrix: np.ndarray) -> float:
    """Return the miou of a (K, K) confusion matrix, rows truth, columns prediction; NaN where it is empty."""
    right = np.diag(matrix)
    return _mean(_ratio(right, matrix.sum(0) + matrix.sum(1) - right))


def _as_numpy(array: Array) -> np.ndarray:
    return array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)


def _as_uint8(array: Array, num_classes: int, what: str, ignore: int) -> np.ndarray:
    """Return a contiguous uint8 map; values that are neither a class nor `ignore` are an error, never wrapped."""
    numbers = _as_numpy(array)
    wrong = (numbers != ignore) & ((numbers < 0) | (numbers >= num_classes))
    if wrong.any():
        raise DataError(f"{what} holds value {numbers[wrong].flat[0]}; expected 0..{num_classes - 1} or {ignore}")
    return np.ascontiguousarray(numbers, dtype=np.uint8)


def _ratio(part: Any, whole: Any) -> np.ndarray:
    """Divide elementwise; NaN where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    undefined = np.full(np.broadcast(part, whole).shape, math.nan)
    return np.asarray(np.divide(part, whole, out=undefined, where=whole > 0))


def _mean(values: Any) -> float:
    """Return the mean of what is defined; NaN where nothing is."""
    numbers = np.asarray(values, np.float64)
    defined = numbers[~np.isnan(numbers)]
    return float(defined.mean()) if defined.size else math.nan


def _floats(values: np.ndarray) -> PerClass:
    return tuple(_number(value) for value in values)


def _number(value: Any) -> float:
    """Return a float; NaN always as the one object `math.nan`, so that equal scores compare equal."""
    return math.nan if np.isnan(value) else float(value)


def _size_row(counts: np.ndarray) -> dict[str, float | int]:
    """Return recall and number of objects by size from (3, 3) counts: size x (objects, pixels, right pixels)."""
    recalls = {f"recall_{size}": float(r) for size, r in zip(SIZES, _ratio(counts[:, 2], counts[:, 1]), strict=True)}
    return recalls | {f"objects_{size}": int(n) for size, n in zip(SIZES, counts[:, 0], strict=True)}
