"""The machine that a figure was taken on, and whether it had something else to do meanwhile."""

from __future__ import annotations

import math
import os
import platform
import shlex
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from segatlas.cores import visible_cores

BUSY = 0.5
"""Load per core by others above which times are not to be believed."""

_LOAD_SECONDS = 60.0
"""The load average of one minute forgets with this time constant."""


@dataclass(frozen=True, kw_only=True)
class MachineState:
    """Facts of the machine and the run.

    cores: those this process may use. omp_wait_policy: None when not set; with the spins before a thread sleeps, where
    they are stated.
    """

    processor: str
    cores: int
    threads: int
    system: str
    python: str
    torch: str
    segatlas: str
    omp_wait_policy: str | None
    date: str
    seed: int
    command: str


@dataclass(frozen=True, kw_only=True)
class Load:
    """Load average of one minute, per core, before and after; None where the system has none.

    own: what the benchmark itself added to the average (its processor time, faded as the average fades).
    clean: nobody else loaded the machine by more than `BUSY` a core. message: the same for people.
    """

    before: float | None
    after: float | None
    own: float
    clean: bool
    message: str


class LoadWatch:
    """Takes the load at its making, and judges it at `finish`."""

    def __init__(self) -> None:
        self._before = load_per_core()
        self._start = (time.monotonic(), _own_seconds())

    def finish(self) -> Load:
        """Return the load before and now."""
        elapsed, worked = time.monotonic() - self._start[0], _own_seconds() - self._start[1]
        return judge_load(self._before, load_per_core(), own_load(worked, elapsed) / visible_cores())


def judge_load(before: float | None, after: float | None, own: float) -> Load:
    """Tell whether a machine was clean, from loads per core; `own` is the benchmark's part of `after`."""
    if before is None or after is None:
        message = "load unknown: this system does not tell; read ratios only"
        return Load(before=before, after=after, own=own, clean=False, message=message)
    others = max(before, after - own)
    figures = f"load per core {before:.2f} before, {after:.2f} after, of which {own:.2f} this benchmark"
    clean = others <= BUSY
    message = f"machine clean: {figures}" if clean else f"this machine is busy: {figures}; read ratios only"
    return Load(before=before, after=after, own=own, clean=clean, message=message)


def own_load(worked: float, elapsed: float) -> float:
    """Return what `worked` processor seconds spread over `elapsed` seconds add to the load average of one minute."""
    if elapsed <= 0:
        return 0.0
    return worked / elapsed * (1 - math.exp(-elapsed / _LOAD_SECONDS))


def load_per_core() -> float | None:
    """Return the load average of one minute per core; None where the system has none (Windows)."""
    if not hasattr(os, "getloadavg"):
        return None
    return os.getloadavg()[0] / visible_cores()


def describe_machine(seed: int) -> MachineState:
    """Return the facts of this machine and run."""
    from segatlas.version import __version__

    return MachineState(
        processor=_processor(),
        cores=visible_cores(),
        threads=torch.get_num_threads(),
        system=platform.platform(),
        python=platform.python_version(),
        torch=torch.__version__,
        segatlas=__version__,
        omp_wait_policy=_wait_policy(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=seed,
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    )


def _wait_policy() -> str | None:
    policy, spins = os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT")
    return policy if policy is None or spins is None else f"{policy}, {spins} spins"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _own_seconds() -> float:
    """Return the processor seconds of this process and its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
