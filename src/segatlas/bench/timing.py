"""The clock work: calls that take turns, and what is reported of their times."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Times of several calls in milliseconds. p95: the smallest time that at least 95 % of the calls did not exceed."""

    median: float
    p95: float
    minimum: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Return the spread of one or more times given in seconds."""
        ordered = sorted(value * 1000 for value in seconds)
        rank = math.ceil(0.95 * len(ordered))
        return cls(median=statistics.median(ordered), p95=ordered[rank - 1], minimum=ordered[0])


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Times of one piece: wall clock, and processor time summed over all threads of this process."""

    wall_ms: Spread
    cpu_ms: Spread


def time_alternating(
    pieces: Sequence[Callable[[], object]],
    *,
    repeats: int,
    warmups: int,
    wall: Clock = time.perf_counter,
    cpu: Clock = time.process_time,
) -> list[Timing]:
    """Time pieces that take turns (A B A B), so that what slows the machine for a while slows all of them.

    The order is reversed in every other round, so that no piece always follows the same one.

    Args:
        pieces: what to call; its results are dropped.
        repeats: measured calls of each piece.
        warmups: calls of each piece before, not measured.
        wall: clock of elapsed seconds.
        cpu: clock of processor seconds.

    Returns:
        One Timing a piece, in the order given.
    """
    for piece in pieces:
        for _ in range(warmups):
            piece()
    walls: list[list[float]] = [[] for _ in pieces]
    cpus: list[list[float]] = [[] for _ in pieces]
    for turn in range(repeats):
        order = range(len(pieces)) if turn % 2 == 0 else reversed(range(len(pieces)))
        for index in order:
            piece = pieces[index]
            cpu_start, wall_start = cpu(), wall()
            piece()
            wall_end, cpu_end = wall(), cpu()
            walls[index].append(wall_end - wall_start)
            cpus[index].append(cpu_end - cpu_start)
    return [Timing(wall_ms=Spread.of(w), cpu_ms=Spread.of(c)) for w, c in zip(walls, cpus, strict=True)]
