"""The order of training samples: a function of (seed, epoch), and resumable in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class ResumableSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) pairs of this process's share of a seeded permutation.

    `length` stays that of a whole epoch even after `resume`, so that the trainer's batch counter keeps matching.
    """

    def __init__(self, size: int, *, seed: int, rank: int = 0, world: int = 1, batch: int = 1, accumulate: int = 1):
        self.size, self.seed, self.rank, self.world = size, seed, rank, world
        self.length = samples_per_epoch(size // world, batch, accumulate)
        self.epoch = 0
        self._resume_epoch, self._skip = -1, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation; the trainer calls it at the start of each epoch."""
        self.epoch = epoch

    def resume(self, epoch: int, samples: int) -> None:
        """Leave out the first `samples` of this process's share when `epoch` is next iterated."""
        self._resume_epoch, self._skip = epoch, samples

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        mine = order[self.rank :: self.world][: self.length]
        start = self._skip if self.epoch == self._resume_epoch else 0
        self._resume_epoch = -1
        for index in mine[start:]:
            yield self.epoch, int(index)


def samples_per_epoch(samples: int, batch: int, accumulate: int = 1) -> int:
    """Return how many of a process's samples an epoch uses: whole optimiser steps, so that steps and batches agree.

    A smaller last batch or step would also weigh its pictures more. A set too small for one step is used as far as
    whole batches go; one too small for a batch is used whole.
    """
    for unit in (batch * accumulate, batch):
        if samples >= unit:
            return samples - samples % unit
    return samples
