"""A run: the chosen rows one after the other, each in fresh processes, and the figures with what they mean."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.child import OURS, children_seconds
from benchmarks.foreign import PACKAGES, ROOT
from benchmarks.material import is_real
from benchmarks.rows import SEED, Row, Target
from benchmarks.table import ROWS
from segatlas.bench.machine import BUSY, describe_machine, judge_load, load_per_core
from segatlas.cores import visible_cores

FADE_SECONDS = 60.0
"""The load average of one minute forgets with this time constant."""
WAIT_SECONDS = 300.0
LONGEST_SECONDS = 900.0
"""After this a child is given up."""

Say = Callable[[str], None]


class Loads:
    """The machine's load while we work: what we add to it is followed, and what is left is others'."""

    def __init__(self) -> None:
        self.before = load_per_core()
        self._own, self._time, self._worked = 0.0, time.monotonic(), children_seconds()
        self.others = [self.before or 0.0]

    def look(self) -> float | None:
        """Note the load per core, and return the part of it that others made; None where the system does not tell."""
        now, worked = time.monotonic(), children_seconds()
        elapsed = max(now - self._time, 1e-3)
        kept = math.exp(-elapsed / FADE_SECONDS)
        self._own = self._own * kept + (worked - self._worked) / elapsed * (1 - kept)
        self._time, self._worked = now, worked
        load = load_per_core()
        if load is None:
            return None
        self.others.append(max(0.0, load - self._own / visible_cores()))
        return self.others[-1]

    def judge(self) -> dict[str, Any]:
        """Return the verdict on the whole run, for the busiest moment of it."""
        after = load_per_core()
        own = self._own / visible_cores()
        busiest = max(self.others)
        facts = asdict(judge_load(self.before, after, own))
        if facts["clean"] and busiest > BUSY:
            facts |= {"clean": False, "message": f"others loaded this machine by up to {busiest:.2f} a core meanwhile"}
        return facts | {"others_at_most": busiest}


def wait_for_quiet(say: Say, most_seconds: float = WAIT_SECONDS) -> None:
    """Wait until the machine's load allows a clean run, but not for ever: the run then says that it is not clean."""
    end = time.monotonic() + most_seconds
    while (load_per_core() or 0.0) > BUSY and time.monotonic() < end:
        say(f"load per core {load_per_core():.2f}, above {BUSY}: waiting up to {end - time.monotonic():.0f} s")
        time.sleep(10)


def run(rows: Sequence[Row], rounds: int, *, with_scaling: bool, say: Say) -> dict[str, Any]:
    """Measure rows and return all figures."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    loads, start = Loads(), time.monotonic()
    say(f"load per core {loads.before}")
    measured = []
    for number, row in enumerate(rows, start=1):
        begin = time.monotonic()
        figures = measure_row(row, rounds)
        figures["others_load"] = loads.look()
        measured.append(figures)
        say(f"[{number}/{len(rows)}] {row.key}: {time.monotonic() - begin:.0f} s; {in_short(figures)}")
    return {
        "machine": asdict(describe_machine(SEED)) | {"command": "make bench"},
        "versions": versions(),
        "load": loads.judge(),
        "real_images": is_real(),
        "rounds": rounds,
        "seconds": round(time.monotonic() - start),
        "rows": measured,
        "gpu": gpu_reason(),
        "scaling": measure_scaling(say) if with_scaling else None,
    }


def added(report: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of an earlier whole run with the rows of this one in their places, each telling of its run."""
    run = {name: report["machine"][name] for name in ("date", "segatlas", "torch")}
    run |= {"rounds": report["rounds"], "load": report["load"]["message"], "clean": report["load"]["clean"]}
    rows = {row["key"]: row for row in earlier["rows"]} | {row["key"]: row | {"run": run} for row in report["rows"]}
    order = [row.key for row in ROWS if row.key in rows]
    return earlier | {"rows": [rows[key] for key in order]}


def gpu_reason() -> str:
    """Return why the GPU columns are empty."""
    if torch.cuda.is_available():
        return "the rows are written for the processor; the GPU that is here was not used"
    return "the machine had no CUDA device"


def measure_scaling(say: Say) -> dict[str, Any]:
    """Run scaling.py and return what it prints; {"reason": text} where that fails."""
    script = Path(__file__).with_name("scaling.py")
    if not script.is_file():
        return {"reason": f"{script.name} is not there"}
    say("scaling")
    printed, reason = ask([str(script)], "")
    return {"reason": reason} if printed is None else json.loads(printed[printed.index("{") :])


def measure_row(row: Row, rounds: int) -> dict[str, Any]:
    """Return everything about one row; what could not be measured is named with its reason."""
    found, reason = ask_child({"row": row.key, "rounds": rounds})
    facts: dict[str, Any] = {"key": row.key, "group": row.group, "part": row.part, "inputs": row.inputs}
    if reason is not None:
        return facts | {"sides": {}, "memory_mib": {}, "not_measured": {OURS: reason}, "lines": []}
    facts |= {"sides": found["sides"], "not_measured": found["not_measured"]}
    memory: dict[str, float | None] = {}
    if row.memory and OURS in found["sides"]:
        for side in found["sides"]:
            memory[side], reason = ask_child({"row": row.key, "memory": side})
            if reason is not None:
                facts["not_measured"][f"memory of {side}"] = reason
    return facts | {"memory_mib": memory, "lines": lines_of(row, found, memory)}


def lines_of(row: Row, found: dict[str, Any], memory: dict[str, float | None]) -> list[dict[str, Any]]:
    """Return one line for each peer and thread count: ratios, equality, and whether the target is met."""
    lines = []
    own = found["sides"].get(OURS)
    if own is None:
        return []
    if row.most_seconds is not None:
        lines += [limit_line(row, threads, timing, found) for threads, timing in own.items()]
    for name in row.peers:
        for threads, timing in found["sides"].get(name, {}).items():
            target = row.peers[name].target
            ratios = {clock: timing[clock]["median"] / own[threads][clock]["median"] for clock in ("cpu_ms", "wall_ms")}
            ratio = memory_ratio(memory, name)
            equality = found["equal"].get(name)
            holds = equality is None or equality["holds"]
            enough = target.time is None or ratios["cpu_ms"] >= target.time
            small = target.memory is None or (ratio is not None and ratio <= target.memory)
            asked = target != Target() or not holds
            lines.append(
                {
                    "against": name,
                    "threads": int(threads),
                    "target_time": target.time,
                    "target_memory": target.memory,
                    "ratio_cpu": ratios["cpu_ms"],
                    "ratio_wall": ratios["wall_ms"],
                    "memory_ratio": ratio,
                    "equality": equality,
                    "met": (holds and enough and small) if asked else None,
                }
            )
    return lines


def limit_line(row: Row, threads: str, timing: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return the line of a row that must stay below a time."""
    seconds = timing["wall_ms"]["median"] / 1000
    return {
        "against": None,
        "threads": int(threads),
        "most_seconds": row.most_seconds,
        "seconds": seconds,
        "seconds_cpu": timing["cpu_ms"]["median"] / 1000,
        "met": seconds <= (row.most_seconds or math.inf),
    }


def memory_ratio(memory: dict[str, float | None], peer: str) -> float | None:
    """Return our extra memory over a peer's; None where either is unknown or the peer needs none."""
    own, other = memory.get(OURS), memory.get(peer)
    return own / other if own is not None and other else None


def ask_child(request: dict[str, Any]) -> tuple[Any, str | None]:
    """Let a child process measure; return its answer and None, or None and the reason why there is none."""
    printed, reason = ask(["-m", "benchmarks.child"], json.dumps(request))
    return (None, reason) if printed is None else (json.loads(printed.splitlines()[-1]), None)


def ask(words: Sequence[str], text: str) -> tuple[str | None, str | None]:
    """Run this interpreter with words and text as input; return what it prints and None, or None and a reason."""
    paths = [str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, *words],
            input=text,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            timeout=LONGEST_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None, f"took longer than {LONGEST_SECONDS:.0f} s"
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return None, said[-1][:300]
    return done.stdout, None


def versions() -> dict[str, str]:
    """Return the versions of the peers that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def in_short(figures: dict[str, Any]) -> str:
    """Return a row's lines for the screen."""
    parts = []
    for line in figures["lines"]:
        if line["against"] is None:
            parts.append(f"{line['seconds']:.2f} s")
        else:
            parts.append(f"{line['ratio_cpu']:.2f}x {line['against']} ({line['threads']} thr)")
    parts += [f"{name} not measured: {reason}" for name, reason in figures["not_measured"].items()]
    return ", ".join(parts)
