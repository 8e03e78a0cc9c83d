"""Argmax over classes kept as a running maximum: several times faster than torch's own on the CPU."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from segatlas.ops.steps import step_elements

ELEMENTS = 32_768
"""Positions, or pixels of cells, handled at once with one thread: all buffers stay near the core."""


class RunningBest:
    """The best value so far and its class. Flags and classes are floats: torch compares faster into them."""

    def __init__(self, shape: torch.Size, dtype: torch.dtype):
        self.value = torch.empty(shape, dtype=dtype)
        self.winner = torch.zeros(shape, dtype=dtype)
        self.better = torch.empty(shape, dtype=dtype)

    @classmethod
    def continued(cls, value: Tensor, winner: Tensor, better: Tensor) -> RunningBest:
        """Return one that goes on from the best values and classes so far; `better` is a buffer of their shape."""
        running = cls.__new__(cls)
        running.value, running.winner, running.better = value, winner, better
        return running

    def offer(self, value: Tensor, k: int | Tensor) -> None:
        """Compare with the values of class k (a vector: of one class a place); classes must be offered in rising order.

        The number 0 says that these are the first values.
        """
        if isinstance(k, int):
            if k == 0:
                self.value.copy_(value)
                return
            k = _number(k, value.dtype)
        torch.gt(value, self.value, out=self.better)
        torch.maximum(value, self.value, out=self.value)
        torch.maximum(self.winner, self.better.mul_(k), out=self.winner)


@functools.cache
def _number(k: int, dtype: torch.dtype) -> Tensor:
    """Return k as a tensor: torch would make one at every product."""
    return torch.tensor(k, dtype=dtype)


def best_class(planes: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the best class of every position. planes: (K, P) -> (P,)."""
    if planes.device.type != "cpu":
        return planes.argmax(0).to(dtype)
    result = torch.empty(planes.shape[1], dtype=dtype)
    step = step_elements(ELEMENTS)
    for start in range(0, planes.shape[1], step):
        part = planes[:, start : start + step]
        running = RunningBest(part[0].shape, part.dtype)
        for k in range(len(part)):
            running.offer(part[k], k)
        result[start : start + step] = running.winner
    return result
