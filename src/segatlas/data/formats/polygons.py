"""Polygons as COCO means them: the same pixels as its own tools give, in NumPy.

COCO fills a polygon on a raster five times as fine and keeps of it what decides on a pixel. A corner at x, y therefore
means the point x, y of an image whose first pixel covers [0, 1); a pixel belongs to the polygon where the fine outline,
read down each column, has been crossed an odd number of times.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FINE = 5
"""Steps of the fine raster in a pixel."""

Size = tuple[int, int]


def draw_polygons(parts: Sequence[np.ndarray], size: Size) -> np.ndarray:
    """Return (H, W) bool: the pixels that any of the parts covers.

    parts: each the corners of a polygon, (2 n,) or (n, 2) float, x before y; closed by itself. Where an outline crosses
    itself, what lies inside it twice is outside: so holes are drawn. Parts are united, as COCO does.
    """
    mask = np.zeros(size, bool)
    for part in parts:
        mask |= draw_polygon(part, size)
    return mask


def draw_polygon(corners: np.ndarray, size: Size) -> np.ndarray:
    """Return (H, W) bool: the pixels of one polygon, see `draw_polygons`."""
    height, width = size
    points = np.asarray(corners, np.float64).reshape(-1, 2)
    columns, rows = _crossings(np.trunc(FINE * points + 0.5).astype(np.int64), size)
    steps = np.bincount(columns * height + rows, minlength=height * width + 1)[: height * width]
    filled = (np.cumsum(steps) & 1).astype(bool)
    return np.ascontiguousarray(filled.reshape(width, height).T)


def _crossings(points: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Return where the outline enters or leaves: column, and the first row below it; a row of H is the next column's 0.

    points: (n, 2) whole numbers of the fine raster.
    """
    x, y = _walk(points)
    left = np.minimum(x[1:], x[:-1])
    moves = x[1:] != x[:-1]
    column = (left + 0.5) / FINE - 0.5
    moves &= (np.floor(column) == column) & (column >= 0) & (column <= size[1] - 1)
    row = (np.minimum(y[1:], y[:-1])[moves] + 0.5) / FINE - 0.5
    return column[moves].astype(np.int64), np.ceil(np.clip(row, 0, size[0])).astype(np.int64)


def _walk(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of all fine points on the closed outline, one a step along the longer side of each edge."""
    start, end = points, np.roll(points, -1, axis=0)
    across, down = np.abs(end - start).T
    is_flat = across >= down
    flipped = np.where(is_flat, start[:, 0] > end[:, 0], start[:, 1] > end[:, 1])
    low, high = np.where(flipped[:, None], end, start), np.where(flipped[:, None], start, end)
    length = np.maximum(across, down)
    with np.errstate(invalid="ignore", divide="ignore"):
        rise = np.where(is_flat, high[:, 1] - low[:, 1], high[:, 0] - low[:, 0]) / length
    rise = np.where(length > 0, rise, 0.0)
    edge = np.repeat(np.arange(len(points)), length + 1)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(length + 1) - length - 1, length + 1)
    step = np.where(flipped[edge], length[edge] - step, step)
    other = np.where(is_flat, low[:, 1], low[:, 0])[edge] + rise[edge] * step + 0.5
    along = np.where(is_flat, low[:, 0], low[:, 1])[edge] + step
    crosswise = np.trunc(other).astype(np.int64)
    return np.where(is_flat[edge], along, crosswise), np.where(is_flat[edge], crosswise, along)
