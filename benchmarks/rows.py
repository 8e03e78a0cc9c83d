"""What a row of the table is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Call = Callable[[], Any]
Clock = Literal["process", "children"]

SEED = 0
"""Of every random weight, image and label."""


class NotHereError(Exception):
    """A side of a row cannot be run here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Equality:
    """Whether two results are the same as far as the row asks, and the figures behind that, for people."""

    holds: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is asked of us against one peer.

    time: the peer's processor time over ours, at least. memory: our extra memory over the peer's, at most.
    """

    time: float | None = None
    memory: float | None = None


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One opponent of a row. make: from the row's material to the call that is measured; NotHereError if it lacks."""

    make: Callable[[Any], Call]
    target: Target = Target()


@dataclass(frozen=True, kw_only=True)
class Row:
    """One piece of work, done by us and by the peers.

    key: unique, snake case. group: what `--only` names. part: for the table. inputs: what it works on, for the table.
    material: makes what all sides work on; called with True for a tiny version, which warms up a memory probe.
    ours: from the material to our call. peers: by name.
    equal: judges our result against a peer's, given the material; None where there is nothing to compare.
    threads: of torch, each measured on its own. calls: measured calls of a side in one round.
    memory: whether extra memory is measured, at the last of `threads`.
    clock: "children" where a call starts an interpreter whose time counts.
    most_seconds: a limit on our own wall time, where the row has no ratio to keep.
    """

    key: str
    group: str
    part: str
    inputs: str
    material: Callable[[bool], Any]
    ours: Callable[[Any], Call]
    peers: Mapping[str, Peer]
    equal: Callable[[Any, Any, Any], Equality] | None
    threads: tuple[int, ...] = (1, 2)
    calls: int = 1
    memory: bool = True
    clock: Clock = "process"
    most_seconds: float | None = None
