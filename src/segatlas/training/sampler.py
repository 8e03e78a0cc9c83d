"""The order of training samples: what batch `number` of a run holds is a pure function of its number."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from segatlas.training.plan import Plan


class BatchAddresses(Sampler[list[tuple[int, int]]]):
    """Yields the batches of one process from batch `start` to the end of the run, as lists of (epoch, index) pairs.

    There is no state: each `iter` begins at `start`, and no call (such as a trainer's `set_epoch`) can shift it.
    """

    def __init__(self, plan: Plan, *, seed: int, rank: int = 0, start: int = 0):
        self.plan, self.seed, self.rank, self.start = plan, seed, rank, start
        self._known: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def addresses(self, number: int) -> list[tuple[int, int]]:
        """Return what batch `number` of this process holds.

        The samples of a step are one stretch of the epoch's order, dealt out to the processes in turn: which samples a
        step sees does not depend on how it is shared between processes and batches.
        """
        plan = self.plan
        step, part = divmod(number, plan.accumulate)
        epoch, offset = plan.place(step)
        mine = self._order(epoch)[offset : offset + plan.samples_per_step][self.rank :: plan.world]
        return [(epoch, int(index)) for index in mine[part * plan.batch : (part + 1) * plan.batch]]

    def __len__(self) -> int:
        return max(self.plan.batches - self.start, 0)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for number in range(self.start, self.plan.batches):
            yield self.addresses(number)

    def _order(self, epoch: int) -> np.ndarray:
        if self._known[0] != epoch:
            self._known = (epoch, np.random.default_rng([self.seed, epoch]).permutation(self.plan.images))
        return self._known[1]
