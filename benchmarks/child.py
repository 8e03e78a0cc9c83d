"""One row in a process of its own: its times and equalities, or the extra memory of one side."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks.rows import Call, NotHereError, Row
from benchmarks.table import find_row
from segatlas.bench.memory import MIB, peak_growth
from segatlas.bench.timing import time_alternating

OURS = "segatlas"


def main(request: Mapping[str, Any]) -> None:
    """Do what the request says and print the answer as the last line.

    Args:
        request: {"row": key, "rounds": N} for times and equalities, {"row": key, "memory": name of a side} for memory.
    """
    row = find_row(request["row"])
    if "memory" in request:
        set_threads(row.threads[-1])
        answer: Any = extra_memory(row, request["memory"])
    else:
        answer = times_and_equalities(row, request["rounds"])
    sys.stdout.flush()
    print(json.dumps(answer))


def times_and_equalities(row: Row, rounds: int) -> dict[str, Any]:
    """Return {"sides": {name: {threads: timing}}, "equal": {peer: equality}, "not_measured": {name: reason}}."""
    set_threads(row.threads[-1])
    material = row.material(False)
    reasons: dict[str, str] = {}
    calls: dict[str, Call] = {}
    results: dict[str, Any] = {}
    makers: dict[str, Callable[[Any], Call]] = {OURS: row.ours}
    makers |= {name: peer.make for name, peer in row.peers.items()}
    for name, make in makers.items():
        try:
            call = make(material)
            results[name] = call()
            calls[name] = call
        except Exception as error:  # a peer that breaks must not end the run; the page names the reason
            reasons[name] = reason_of(error)
    equalities: dict[str, Any] = {}
    if row.equal is not None and OURS in calls:
        for name in (name for name in calls if name != OURS):
            equalities[name] = asdict(row.equal(material, results[OURS], results[name]))
    results.clear()
    sides: dict[str, dict[str, Any]] = {name: {} for name in calls}
    if OURS in calls:
        for threads in row.threads:
            set_threads(threads)
            for name, timing in zip(calls, time_calls(row, list(calls.values()), rounds), strict=True):
                sides[name][str(threads)] = asdict(timing)
    return {"sides": sides, "equal": equalities, "not_measured": reasons}


def time_calls(row: Row, calls: list[Call], rounds: int) -> list[Any]:
    """Time calls that have been warmed up: each has been made once for its result."""
    repeats = rounds * row.calls
    if row.clock == "children":
        return time_alternating(calls, repeats=repeats, warmups=0, cpu=children_seconds)
    return time_alternating(calls, repeats=repeats, warmups=0)


def children_seconds() -> float:
    """Return the processor seconds of finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def extra_memory(row: Row, side: str) -> float | None:
    """Return MiB that one call needs beyond its input and its result; None where the system does not tell."""
    make = row.ours if side == OURS else row.peers[side].make
    make(row.material(True))()
    call = make(row.material(False))
    result: list[Any] = []
    grown = peak_growth(lambda: result.append(call()))
    return None if grown is None else round(max(0, grown - size_of(result)) / MIB, 2)


def size_of(result: Any) -> int:
    """Return the bytes of all tensors and arrays in a result."""
    if isinstance(result, Tensor | np.ndarray):
        return int(result.nbytes)
    if isinstance(result, Mapping):
        return sum(map(size_of, result.values()))
    return sum(map(size_of, result)) if isinstance(result, list | tuple) else 0


def set_threads(count: int) -> None:
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def reason_of(error: Exception) -> str:
    text = str(error) if isinstance(error, NotHereError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main(json.load(sys.stdin))
