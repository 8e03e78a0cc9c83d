"""Masks by their part and its place: what two have in common, and what they would, were one of them moved."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

LEAST_IOU = 0.5
"""Of a mask and one that was moved onto it: below, they are not the same thing in another place."""

EXPLAINED = 0.5
"""Fraction of the pixels that differ which the move must take away."""


class PlacedMask(NamedTuple):
    """A mask. part: (h, w) bool. top, left: where the part lies in the image. size: (H, W) of the image."""

    part: np.ndarray
    top: int
    left: int
    size: tuple[int, int]

    @property
    def area(self) -> int:
        """Number of its pixels."""
        return int(np.count_nonzero(self.part))

    @property
    def centre(self) -> tuple[float, float]:
        """Mean row and column of its pixels; it must have some."""
        rows, columns = np.nonzero(self.part)
        return float(rows.mean()) + self.top, float(columns.mean()) + self.left

    def bitmap(self) -> np.ndarray:
        """Return it in its image, (H, W) bool."""
        made = np.zeros(self.size, bool)
        height, width = self.part.shape
        made[self.top : self.top + height, self.left : self.left + width] = self.part
        return made

    def moved(self, down: int, right: int) -> PlacedMask:
        """Return it moved; what lies beyond the image's frame is cut off."""
        top, left = self.top + down, self.left + right
        height, width = self.part.shape
        above, before = max(-top, 0), max(-left, 0)
        below, behind = min(height, self.size[0] - top), min(width, self.size[1] - left)
        return PlacedMask(self.part[above:below, before:behind], top + above, left + before, self.size)


def common(one: PlacedMask, other: PlacedMask) -> int:
    """Return how many pixels two masks share."""
    ends = []
    for axis, (a, b) in enumerate(((one.top, other.top), (one.left, other.left))):
        first = max(a, b)
        last = min(a + one.part.shape[axis], b + other.part.shape[axis])
        if last <= first:
            return 0
        ends.append((slice(first - a, last - a), slice(first - b, last - b)))
    (rows, other_rows), (columns, other_columns) = ends
    return int(np.count_nonzero(one.part[rows, columns] & other.part[other_rows, other_columns]))


def is_shifted(one: PlacedMask, other: PlacedMask) -> bool:
    """Tell whether a mask is the other one in another place.

    Moved by the way between their centres, whole pixels and no further than its own longer side, the one has an IoU of
    LEAST_IOU at least with the other, and of the pixels that differed EXPLAINED at least are gone.
    """
    if not (one.area and other.area):
        return False
    (row, column), (other_row, other_column) = one.centre, other.centre
    down, right = round(other_row - row), round(other_column - column)
    if (down, right) == (0, 0) or math.hypot(down, right) > max(one.part.shape):
        return False
    before = one.area + other.area - 2 * common(one, other)
    there = one.moved(down, right)
    both = common(there, other)
    together = there.area + other.area - both
    after = one.area + other.area - 2 * both
    return together > 0 and both >= LEAST_IOU * together and after <= EXPLAINED * before
