"""A line through the middle of a region, as somebody draws who marks it with one stroke.

Letters: h, w the region's box; S pixels of its skeleton, the line that is left when the region is thinned from all
sides at once (Zhang and Suen 1984).
"""

from __future__ import annotations

from collections import deque

import numpy as np

LARGEST = 64
"""Rows and columns that a region is thinned at: a stroke needs no finer line, and thinning takes time."""

Place = tuple[int, int]


def middle_line(inside: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the pixels (P, 2) of a line through a region, (row, column) each, from one end to the other.

    The line runs from a random pixel of the skeleton to the farthest one along it, and has at least one pixel.

    Args:
        inside: (h, w) bool, one region, at least one pixel.
        generator: draws where the line begins.
    """
    import cv2

    step = max(1, -(-max(inside.shape) // LARGEST))
    small = inside
    if step > 1:
        rows, columns = (-(-side // step) for side in inside.shape)
        padded = np.zeros((rows * step, columns * step), np.uint8)
        padded[: inside.shape[0], : inside.shape[1]] = inside
        covered = cv2.resize(padded.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
        small = covered >= 0.5
    thin = skeleton(small)
    if not thin.any():  # nothing is left of two by two pixels
        return middle_of(inside)
    line = _longest(thin, generator)
    places = np.array(line, np.int64) * step + step // 2
    return np.minimum(places, np.array(inside.shape) - 1)


def middle_of(inside: np.ndarray) -> np.ndarray:
    """Return the centre (1, 2) of the largest circle inside a region (h, w) bool: a pixel of it, (row, column)."""
    import cv2

    distance = cv2.distanceTransform(np.pad(inside.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    return np.array([np.unravel_index(int(distance.argmax()), distance.shape)])


def skeleton(inside: np.ndarray) -> np.ndarray:
    """Return the skeleton (h, w) bool of a region (h, w) bool: lines one or two pixels wide that hang together."""
    region = np.pad(inside.astype(bool), 1)
    while True:
        changed = False
        for first in (True, False):
            around = _neighbours(region)
            count = around.sum(axis=0)
            begins = (~around & np.roll(around, -1, axis=0)).sum(axis=0)  # from outside to inside, round the pixel
            north, east, south, west = around[0], around[2], around[4], around[6]
            open_side = ~(north & east & south) & ~(east & south & west)
            if not first:
                open_side = ~(north & east & west) & ~(north & south & west)
            gone = region[1:-1, 1:-1] & (count >= 2) & (count <= 6) & (begins == 1) & open_side
            if gone.any():
                region[1:-1, 1:-1] &= ~gone
                changed = True
        if not changed:
            return region[1:-1, 1:-1]


def _neighbours(region: np.ndarray) -> np.ndarray:
    """Return the eight neighbours (8, h, w) of each pixel within a rim of one: from above, clockwise."""
    rows, columns = region.shape
    offsets = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
    return np.stack([region[1 + y : rows - 1 + y, 1 + x : columns - 1 + x] for y, x in offsets])


def _longest(line: np.ndarray, generator: np.random.Generator) -> list[Place]:
    """Return the way along a skeleton from a random pixel's farthest one to the farthest of that."""
    places = [(int(row), int(column)) for row, column in np.argwhere(line)]
    start = places[int(generator.integers(len(places)))]
    end, _ = _farthest(set(places), start)
    last, came_from = _farthest(set(places), end)
    way = [last]
    while (before := came_from[way[-1]]) is not None:
        way.append(before)
    return way


def _farthest(places: set[Place], start: Place) -> tuple[Place, dict[Place, Place | None]]:
    """Return the place farthest from `start`, in steps to one of eight neighbours, and each one's place before."""
    came_from: dict[Place, Place | None] = {start: None}
    waiting, place = deque([start]), start
    while waiting:
        place = waiting.popleft()
        for y in (-1, 0, 1):
            for x in (-1, 0, 1):
                near = (place[0] + y, place[1] + x)
                if near in places and near not in came_from:
                    came_from[near] = place
                    waiting.append(near)
    return place, came_from
