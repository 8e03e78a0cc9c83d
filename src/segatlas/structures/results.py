"""What is found in one image, as plain data in the image's own size. No torch is needed to hold it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from segatlas.errors import TaskError


def _equal(one: Any, other: Any) -> bool:
    """Compare plain data that may hold arrays, whose own `==` gives an array."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        both = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
        return both and one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


class _WithArrays:
    """A dataclass with arrays among its fields: equal when all fields are."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_equal(value, vars(other)[name]) for name, value in vars(self).items())

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True, eq=False)
class Instance(_WithArrays):
    """One object. mask: (H, W) bool. class_index: 0..K-1. score: 0..1."""

    mask: np.ndarray
    class_index: int
    score: float

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) in pixels, the last two exclusive; all 0 for an empty mask."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        if not rows.size:
            return 0, 0, 0, 0
        return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.mask))


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One segment of a panoptic result. id: its value in the map, from 1. is_thing: an object, not stuff."""

    id: int
    class_index: int
    is_thing: bool
    score: float
    area: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Panoptic(_WithArrays):
    """A segment for each pixel. ids: (H, W) int32, 0 = none. segments: those that occur, by rising id."""

    ids: np.ndarray
    segments: tuple[Segment, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Result(_WithArrays):
    """What is found in one image; None = the model does not give it, or it was not asked for.

    class_map: (H, W), uint8 for up to 255 classes, else int32. confidence: (H, W) float32, probability of the class in
    `class_map`. objects: by falling score. segments: a segment for each pixel.

    Two results are equal when all that they hold is.
    """

    class_map: np.ndarray | None = None
    confidence: np.ndarray | None = None
    objects: tuple[Instance, ...] | None = None
    segments: Panoptic | None = None

    @property
    def semantic(self) -> np.ndarray:
        """(H, W) class index per pixel, uint8 for up to 255 classes, else int32. TaskError where there is none."""
        if self.class_map is None:
            raise self._missing("semantic map")
        return self.class_map

    @property
    def instances(self) -> tuple[Instance, ...]:
        """Objects with mask, class and score, by falling score. TaskError where the model gives none."""
        if self.objects is None:
            raise self._missing("instances")
        return self.objects

    @property
    def panoptic(self) -> Panoptic:
        """Segment of each pixel, and the segments. TaskError where the model gives none."""
        if self.segments is None:
            raise self._missing("panoptic result")
        return self.segments

    @property
    def given(self) -> tuple[str, ...]:
        """Those of "semantic", "instances" and "panoptic" that this result has."""
        parts = {"semantic": self.class_map, "instances": self.objects, "panoptic": self.segments}
        return tuple(name for name, part in parts.items() if part is not None)

    def _missing(self, what: str) -> TaskError:
        return TaskError(f"this model gives no {what}; it can give: {', '.join(self.given) or 'nothing'}")
