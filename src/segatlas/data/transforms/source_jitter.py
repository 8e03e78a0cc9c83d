"""A further input moved on purpose, so that a network learns not to trust it blindly: a placement of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from segatlas.data.transforms.geometry import Placement, Size, identity, rotated
from segatlas.data.transforms.thin_plate import ThinPlateWarp


@dataclass(frozen=True, kw_only=True)
class SourceJitter:
    """Scale and rotate about the centre, shift, bend: what a source shows before it moves with its image.

    probability: fraction of samples that get it. scale: factor, drawn log-uniformly between these. rotation: degrees
    each way. shift: fraction of height and width, each way. bend: standard deviation of control points, in half sides.
    """

    probability: float = 1.0
    scale: tuple[float, float] = (1.0, 1.0)
    rotation: float = 0.0
    shift: float = 0.0
    bend: float = 0.0

    def draw(self, generator: np.random.Generator, size: Size) -> Placement:
        """Draw the placement of a source of `size`, which it keeps. The same numbers are drawn, whatever is used."""
        is_moved = generator.random() < self.probability
        factor = math.exp(generator.uniform(math.log(self.scale[0]), math.log(self.scale[1])))
        angle = math.radians(generator.uniform(-self.rotation, self.rotation))
        down, across = generator.uniform(-self.shift, self.shift, 2)
        bend = ThinPlateWarp(probability=1.0, sigma=self.bend).draw(generator, size) if self.bend else identity(size)
        if not is_moved:
            return identity(size)
        height, width = size
        x, y = width / 2, height / 2
        scaled = np.array([[1 / factor, 0, x - x / factor], [0, 1 / factor, y - y / factor], [0, 0, 1]])
        moved = np.array([[1.0, 0.0, -across * width], [0.0, 1.0, -down * height], [0.0, 0.0, 1.0]])
        placement = Placement(matrix=scaled, size=size).then(rotated(size, angle))
        return placement.then(Placement(matrix=moved, size=size)).then(bend)
