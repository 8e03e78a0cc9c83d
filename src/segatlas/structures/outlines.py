"""The outline of a mask as polygons with holes, and lengths that follow from it: exact, in pixel coordinates.

Coordinates are x right and y down, in pixels, from the top left corner of the image: the pixel in row r and column c
covers x from c to c + 1 and y from r to r + 1. Corners of polygons are corners of pixels, whole numbers; a pixel is
inside where its middle is, so the polygons give the same mask back. Pixels that touch at a corner alone belong to
different polygons; what touches at a corner alone is one hole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from segatlas.structures.rle import Rle

STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
"""x and y of a step right, down, left and up. The mask lies to the right hand of whoever walks along the outline."""

CORNER = math.sqrt(0.5)
"""From the middle of a pixel's side to the middle of the next one around a corner."""


class Polygon(NamedTuple):
    """One part of a mask. Rings are (n, 2) int64, x before y, each closed by itself.

    outer: clockwise as seen. holes: the other way round.
    """

    outer: np.ndarray
    holes: tuple[np.ndarray, ...]

    @property
    def area(self) -> int:
        """Pixels inside, those of holes not."""
        return sum(_signed_area(ring) for ring in (self.outer, *self.holes)) // 2


class Measures(NamedTuple):
    """What can be measured of a mask, in pixels.

    area: pixels. perimeter: length of all outlines, holes included, with corners cut: from the middle of each pixel's
    side to the middle of the next. centroid: x and y, the mean of the pixels' middles. longest_axis: the largest
    distance of two corners of pixels. All 0 for an empty mask.
    """

    area: int
    perimeter: float
    centroid: tuple[float, float]
    longest_axis: float


class _Sides(NamedTuple):
    """Sides of pixels between inside and outside. start: (E, 2) x and y. way: (E,) index of STEPS. following: (E,)."""

    start: np.ndarray
    way: np.ndarray
    following: np.ndarray


def polygons_of(mask: Rle) -> tuple[Polygon, ...]:
    """Return the polygons of a mask, by their topmost, then leftmost corner; none for an empty one."""
    import cv2  # here: what holds results loads without

    if not mask.area:
        return ()
    top, left, _, _ = mask.box
    part = mask.part()
    rings = _rings(_sides_of(part))
    _, labels = cv2.connectedComponents(part.astype(np.uint8), connectivity=4)
    outers: dict[int, np.ndarray] = {}
    holes: dict[int, list[np.ndarray]] = {}
    for ring in rings:
        x, y = ring[0]  # where a side begins whose pixel lies to the right hand
        first = ring[1] - ring[0]
        row, column = _pixel_at_right(int(x), int(y), np.sign(first))
        label = int(labels[row, column])
        placed = ring + np.array([left, top])
        if _signed_area(ring) > 0:
            outers[label] = placed
        else:
            holes.setdefault(label, []).append(placed)
    found = [Polygon(outer, tuple(holes.get(label, ()))) for label, outer in outers.items()]
    return tuple(sorted(found, key=lambda one: _first_corner(one.outer)))


def joined_ring(polygon: Polygon) -> np.ndarray:
    """Return one ring (n, 2) for a polygon with holes: each is reached, and left again, on the same straight line.

    By the rule of even and odd crossings it covers the same pixels, for formats whose polygons have no holes.
    """
    ring = polygon.outer
    for hole in sorted(polygon.holes, key=_first_corner):
        apart = np.abs(ring[:, None] - hole[None]).sum(axis=2)
        here, there = divmod(int(apart.argmin()), len(hole))
        around = np.roll(hole, -there, axis=0)
        ring = np.concatenate([ring[: here + 1], around, around[:1], ring[here:]])
    return ring


def measures_of(mask: Rle) -> Measures:
    """Return what can be measured of a mask."""
    if not mask.area:
        return Measures(0, 0.0, (0.0, 0.0), 0.0)
    top, left, _, _ = mask.box
    part = mask.part()
    sides = _sides_of(part)
    straight = int(np.count_nonzero(sides.way == sides.way[sides.following]))
    rows, columns = np.nonzero(part)
    return Measures(
        area=mask.area,
        perimeter=straight + CORNER * (len(sides.way) - straight),
        centroid=(float(columns.mean()) + left + 0.5, float(rows.mean()) + top + 0.5),
        longest_axis=_longest(sides.start),
    )


def _sides_of(part: np.ndarray) -> _Sides:
    """Return the sides of a mask (h, w) bool that has pixels."""
    around = np.pad(part, 1)
    outside = (around[:-2, 1:-1], around[1:-1, 2:], around[2:, 1:-1], around[1:-1, :-2])
    begin = ((0, 0), (1, 0), (1, 1), (0, 1))  # of a pixel's upper, right, lower and left side
    starts, ways = [], []
    for index, (neighbour, (right, down)) in enumerate(zip(outside, begin, strict=True)):
        rows, columns = np.nonzero(part & ~neighbour)
        starts.append(np.stack([columns + right, rows + down], axis=1))
        ways.append(np.full(len(rows), index))
    start, way = np.concatenate(starts), np.concatenate(ways)
    width = part.shape[1] + 1
    codes = (start[:, 1] * width + start[:, 0]) * 4 + way
    order = np.argsort(codes)
    ordered = codes[order]
    end = start + STEPS[way]
    corner = (end[:, 1] * width + end[:, 0]) * 4
    following = np.full(len(way), -1)
    for turn in (3, 0, 1):  # left, straight on, right: the last that is there counts, so corners part what they join
        wanted = corner + (way + turn) % 4
        place = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
        there = ordered[place] == wanted
        following[there] = order[place[there]]
    return _Sides(start, way, following)


def _rings(sides: _Sides) -> list[np.ndarray]:
    """Return the closed ways along sides, (n, 2) corners at which the way turns."""
    following = sides.following.tolist()
    seen = bytearray(len(following))
    rings = []
    for first in range(len(following)):
        if seen[first]:
            continue
        walk = []
        at = first
        while not seen[at]:
            seen[at] = 1
            walk.append(at)
            at = following[at]
        ways = sides.way[walk]
        rings.append(sides.start[walk][ways != np.roll(ways, 1)])
    return rings


def _pixel_at_right(x: int, y: int, step: np.ndarray) -> tuple[int, int]:
    """Return row and column of the pixel to the right hand of a step from a corner."""
    right, down = int(step[0]), int(step[1])
    if right:
        return (y, x) if right > 0 else (y - 1, x - 1)
    return (y, x - 1) if down > 0 else (y - 1, x)


def _signed_area(ring: np.ndarray) -> int:
    x, y = ring[:, 0], ring[:, 1]
    return int(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def _first_corner(ring: np.ndarray) -> tuple[int, int]:
    y, x = min(zip(ring[:, 1].tolist(), ring[:, 0].tolist(), strict=True))
    return y, x


def _longest(points: np.ndarray) -> float:
    """Return the largest distance of two of some points (n, 2)."""
    rows: dict[int, tuple[int, int]] = {}
    low = np.full(int(points[:, 1].max()) + 1, np.iinfo(np.int64).max)
    high = np.full(len(low), -1)
    np.minimum.at(low, points[:, 1], points[:, 0])
    np.maximum.at(high, points[:, 1], points[:, 0])
    rows = {y: (int(low[y]), int(high[y])) for y in np.flatnonzero(high >= 0).tolist()}
    hull = np.array(
        _half([(x, y) for y, (x, _) in rows.items()], 1) + _half([(x, y) for y, (_, x) in rows.items()], -1)
    )
    apart = hull[:, None] - hull[None]
    return float(np.sqrt((apart**2).sum(axis=2).max()))


def _half(points: Sequence[tuple[int, int]], side: int) -> list[tuple[int, int]]:
    """Return those of points, one a row by rising y, that lie on the left (1) or right (-1) half of their hull."""
    chain: list[tuple[int, int]] = []
    for x, y in points:
        while len(chain) > 1:
            (x0, y0), (x1, y1) = chain[-2:]
            if side * ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) < 0:
                break
            chain.pop()
        chain.append((x, y))
    return chain
