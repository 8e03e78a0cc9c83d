"""What is found in one image, as plain data in the image's own size. No torch is needed to hold it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Instance:
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
class Panoptic:
    """A segment for each pixel. ids: (H, W) int32, 0 = none. segments: those that occur, by rising id."""

    ids: np.ndarray
    segments: tuple[Segment, ...]
