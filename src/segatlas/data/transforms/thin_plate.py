"""Random smooth bending of a sample by a thin-plate spline (Bookstein 1989): image, sources and truth alike.

The spline goes through a regular lattice of points, each of which is moved by normal noise. In numpy, for it runs where
samples are read; `segatlas.layers.tps` is the same for networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from segatlas.data.transforms.geometry import Placement, Size, identity

SMALL = 1e-9


@dataclass(frozen=True, kw_only=True)
class ThinPlateWarp:
    """Bend `probability` of the samples.

    sigma: deviation of each point's move along x and y, as a fraction of half that side. points: of the lattice, along
        each side; the outermost lie in the image's corners.
    """

    probability: float = 0.5
    sigma: float = 0.05
    points: int = 4

    def draw(self, generator: np.random.Generator, size: Size) -> Placement:
        """Draw the moves of all points, or leave an image of `size` as it is."""
        bends = generator.random() < self.probability
        moves = generator.normal(0.0, self.sigma, (self.points**2, 2))
        return bent(size, moves) if bends else identity(size)


def bent(size: Size, moves: np.ndarray) -> Placement:
    """Return the placement of a spline that moves the points of a lattice.

    Args:
        size: (height, width) of the image, which is kept.
        moves: (n^2, 2) along x and y, of the n x n points row by row, as fractions of half a side: the image shows
            at each point what lies that far from it.
    """
    side = round(len(moves) ** 0.5)
    inverse, lattice = _system(side)
    solution = inverse @ np.concatenate([moves, np.zeros((3, 2))])
    weights, affine = solution[:-3], solution[-3:]
    height, width = size
    x, y = 2 * (np.arange(width) + 0.5) / width - 1, (2 * (np.arange(height) + 0.5) / height - 1)[:, None]
    move = x[..., None] * affine[0] + y[..., None] * affine[1] + affine[2]  # (height, width, 2)
    for (at_x, at_y), weight in zip(lattice, weights, strict=True):
        move = move + _kernel((x - at_x) ** 2 + (y - at_y) ** 2)[..., None] * weight
    plain = identity(size)
    return Placement(matrix=plain.matrix, size=size, grid=plain.points() + move * np.array([width / 2, height / 2]))


@lru_cache(maxsize=16)
def _system(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what moves of a lattice are multiplied by for weights and affine part, and its points (side^2, 2).

    The lattice is always the same, so that its system is solved once, for the moves of one point each.
    """
    steps = np.linspace(-1, 1, side)
    lattice = np.stack([np.tile(steps, side), np.repeat(steps, side)], axis=1)
    squared = ((lattice[:, None] - lattice) ** 2).sum(axis=2)
    plane = np.concatenate([lattice, np.ones((side**2, 1))], axis=1)
    system = np.block([[_kernel(squared), plane], [plane.T, np.zeros((3, 3))]])
    return np.linalg.solve(system, np.eye(len(system))), lattice


def _kernel(squared: np.ndarray) -> np.ndarray:
    values: np.ndarray = squared * np.log(squared + SMALL)
    return values
