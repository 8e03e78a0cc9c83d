"""Bending an image by a thin-plate spline: the smoothest map that takes some points where they are to go.

The same as `segatlas.layers.tps` without torch, for samples: a `Bend` is a step of geometry whose placement has a grid.

Letters: n control points; U(r) = r^2 log r^2. Units are half sides: an image covers -1..1 both ways.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from segatlas.data.transforms.geometry import Placement, Size, identity

POINTS = 4
"""Control points along each side of a `Bend`."""


@dataclass(frozen=True, kw_only=True)
class Bend:
    """Bend by 4 x 4 control points, each moved by normal noise of `sigma` half sides; the size is kept.

    Beyond the image there is nothing: what is drawn from there is padding.
    """

    sigma: float

    def draw(self, generator: np.random.Generator, size: Size) -> Placement:
        """Draw where the control points go."""
        across = np.linspace(-1, 1, POINTS)
        points = np.stack(np.meshgrid(across, across), axis=-1).reshape(-1, 2)
        return bent(size, points, points + generator.normal(0, self.sigma, points.shape))


def bent(size: Size, points: np.ndarray, shown: np.ndarray) -> Placement:
    """Return the bend of an image by which each control point shows another point.

    Args:
        size: (height, width).
        points: (n, 2) points (x, y) of the new image in half sides, not all on a line.
        shown: (n, 2) points of the old image.
    """
    plain = identity(size)
    half = np.array([size[1] / 2, size[0] / 2])
    at = plain.points() / half - 1
    return Placement(matrix=plain.matrix, size=size, grid=(thin_plate(points, shown, at) + 1) * half)


def thin_plate(points: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the thin-plate spline through (n, 2) `values` at (n, 2) `points`, read at (..., 2) `at`.

    It is solved and read without a library of linear algebra, so that equal input gives equal output wherever it runs.
    """
    count = len(points)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = _kernel(((points[:, None] - points) ** 2).sum(axis=-1))
    system[:count, count:] = np.column_stack([points, np.ones(count)])
    system[count:, :count] = system[:count, count:].T
    weights = solve(system, np.concatenate([values, np.zeros((3, 2))]))
    found = at[..., :1] * weights[count] + at[..., 1:] * weights[count + 1] + weights[count + 2]
    for point, weight in zip(points, weights[:count], strict=True):
        found += _kernel(((at - point) ** 2).sum(axis=-1))[..., None] * weight
    return np.asarray(found)


def solve(system: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Solve (m, m) x = (m, k) by elimination, the largest pivot first. LinAlgError where there is no one solution."""
    rows = np.concatenate([system, values], axis=1).astype(np.float64)
    size = len(rows)
    smallest = 1e-10 * np.abs(system).max()
    for column in range(size):
        pivot = column + int(np.abs(rows[column:, column]).argmax())
        if not abs(rows[pivot, column]) > smallest:
            raise np.linalg.LinAlgError("control points on one line, or two at one place")
        rows[[column, pivot]] = rows[[pivot, column]]
        rows[column] /= rows[column, column]
        for other in range(size):
            if other != column:
                rows[other] -= rows[other, column] * rows[column]
    return rows[:, size:]


def _kernel(squares: np.ndarray) -> np.ndarray:
    """Return U of squared distances."""
    return np.asarray(squares * np.log(np.maximum(squares, 1e-300)))
