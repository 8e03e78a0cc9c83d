"""Counts that add up: memory does not grow with the set, the order of images and processes does not matter."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class Sums:
    """int64 arrays by name, 0 at first. What most metrics count with; they add in `update` and divide in `compute`."""

    def __init__(self, **shapes: tuple[int, ...]):
        self.counts = {name: np.zeros(shape, np.int64) for name, shape in shapes.items()}

    def state(self) -> dict[str, np.ndarray]:
        """Return a copy of the counts."""
        return {name: array.copy() for name, array in self.counts.items()}

    def merge(self, state: Mapping[str, np.ndarray]) -> None:
        """Add the counts of another object made with the same arguments."""
        if {name: array.shape for name, array in state.items()} != {n: a.shape for n, a in self.counts.items()}:
            raise ValueError(f"state holds {sorted(state)}, expected {sorted(self.counts)} of the same shapes")
        for name, array in self.counts.items():
            array += state[name]
