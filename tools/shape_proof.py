"""Proof that a change of shape changed no number: `make shape-proof`, or

    python tools/shape_proof.py [--references FOLDER] [--only PART ...]

It runs every golden of the importers, the parity keys of which FOLDER holds references (see `tools/parity.py`), one
training step with a recipe of each architecture, and what earlier months left on people's disks (`tools/frozen.py`).
A table says for each part how many comparisons are equal, close, different or were not run. Exits 1 on any difference,
and where a part compared nothing.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "tools")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402
from fakes.golden_cases import GOLDENS, golden_differences  # noqa: E402
from fakes.small_recipes import dry_facts, recipe_of_each_architecture, write_sets  # noqa: E402

import frozen  # noqa: E402
import parity  # noqa: E402
from frozen import Outcome  # noqa: E402
from segatlas.models import ARCHITECTURES  # noqa: E402

STATES = ("equal", "close", "differs", "not run")
PARITY_THREADS = 2
"""As the libraries had them: other counts round otherwise."""
NO_REFERENCES = "no references: give their folder with --references"

Part = Callable[[Path], Iterator[Outcome]]
"""From an empty folder to work in to outcomes."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=Path, help="folder of what ref_models.py wrote; without it no parity")
    parser.add_argument(
        "--only", nargs="*", metavar="PART", help="goldens, parity, dry-runs, or a part of frozen/MONTH"
    )
    parser.add_argument("--verbose", action="store_true", help="a line for each comparison")
    args = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    parts = all_parts(args.references)
    if unknown := set(args.only or ()) - parts.keys():
        parser.error(f"no part {', '.join(sorted(unknown))}; expected some of: {', '.join(parts)}")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, part in parts.items():
            if args.only and name not in args.only:
                continue
            started = time.perf_counter()
            place = Path(folder) / name.replace("/", "-")
            place.mkdir()
            results[name] = list(guarded(part, name, place))
            if args.verbose:
                for outcome in results[name]:
                    print(f"{name}: {outcome.state:<8} {outcome.name}  {outcome.detail}", flush=True)
            print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    print(table(results))
    return int(failed(results))


def all_parts(references: Path | None) -> dict[str, Part]:
    """Return every part by its name in the table."""
    parts: dict[str, Part] = {
        "goldens": lambda place: goldens(),
        "parity": lambda place: parity_keys(references),
        "dry-runs": dry_runs,
    }
    for month in frozen.months():
        for name in frozen.CHECKS:
            parts[f"{month.name}/{name}"] = partial(frozen_part, name, month)
    return parts


def guarded(part: Part, name: str, place: Path) -> Iterator[Outcome]:
    """Yield a part's outcomes; an error that it does not catch is a difference, and so is no outcome at all."""
    count = 0
    try:
        for outcome in part(place):
            count += 1
            yield outcome
    except Exception as error:
        yield Outcome(name=name, state="differs", detail=f"{type(error).__name__}: {error}"[:300])
        return
    if not count:
        yield Outcome(name=name, state="differs", detail="nothing was compared")


# ---- parts
def goldens() -> Iterator[Outcome]:
    """Compare every golden, the large ones too."""
    for name, (source, case) in GOLDENS.items():
        told = attempt(partial(golden_differences, source, case))
        yield Outcome(name=name, state="differs" if told else "equal", detail="; ".join(told[:2]))


def attempt(work: Callable[[], list[str]]) -> list[str]:
    """Return what differs; an error is told as one difference."""
    try:
        return work()
    except Exception as error:
        return [f"{type(error).__name__}: {error}"[:300]]


def parity_keys(references: Path | None) -> Iterator[Outcome]:
    """Convert each library's checkpoint that is there, and compare what the library computed from it."""
    if references is None:
        yield Outcome(name="all keys", state="not run", detail=NO_REFERENCES)
        return
    torch.set_num_threads(PARITY_THREADS)
    for place in sorted(path for path in references.iterdir() if path.is_dir()):
        if not (place / "checkpoint.pth").exists():
            yield Outcome(name=place.name, state="not run", detail=f"no checkpoint.pth in {place}")
            continue
        try:
            result = parity.compare(place, None)
        except Exception as error:
            yield Outcome(name=place.name, state="differs", detail=f"{type(error).__name__}: {error}"[:300])
            continue
        logits = "-" if result.logits is None else f"{result.logits:.1e}"
        detail = f"{result.key}: logits {logits}, scores {result.scores:.1e}, labels {result.labels}, {result.back}"
        yield Outcome(name=place.name, state="equal" if result.good else "differs", detail=detail)
    torch.set_num_threads(1)


def dry_runs(place: Path) -> Iterator[Outcome]:
    """Take one step with a recipe of each architecture; loss and shapes must be those that the newest month wrote."""
    month = frozen.months()[-1]
    known, exact = frozen.expected(month, "dry_runs.json"), not frozen.other_facts(month)
    roots, chosen = write_sets(place / "sets"), recipe_of_each_architecture()
    for architecture in ARCHITECTURES.keys() - chosen.keys():
        yield Outcome(name=architecture, state="differs", detail="no shipped recipe trains it")
    for name in [*chosen.values(), *(known.keys() - set(chosen.values()))]:
        try:
            facts = dry_facts(name, roots)
        except Exception as error:
            yield Outcome(name=name, state="differs", detail=f"{type(error).__name__}: {error}"[:300])
            continue
        if name in known:
            limit = None if exact else frozen.CLOSE_PIXELS
            yield frozen.compare_trees(name, "step", facts, known[name], limit)
        else:
            detail = f"new since {month.name}: ran, nothing to compare with, loss {facts['loss']:.4f}"
            yield Outcome(name=name, state="not run", detail=detail)


def frozen_part(part: str, month: Path, place: Path) -> Iterator[Outcome]:
    """Run one part on one month's folder."""
    yield from frozen.check(part, month, place)


# ---- the table
def table(results: dict[str, list[Outcome]]) -> str:
    """Return the table of all parts, what differs or was not run, and on which terms bits were compared."""
    rows = [("part", "count", *STATES)]
    for name, outcomes in results.items():
        counts = [sum(outcome.state == state for outcome in outcomes) for state in STATES]
        rows.append((name, *map(str, (len(outcomes), *counts))))
    totals = [sum(int(row[column]) for row in rows[1:]) for column in range(1, len(rows[0]))]
    rows.append(("all", *map(str, totals)))
    width = max(len(row[0]) for row in rows)
    lines = [f"| {row[0]:<{width}} | " + " | ".join(f"{cell:>7}" for cell in row[1:]) + " |" for row in rows]
    lines.insert(1, f"| {'-' * width} |" + "|".join(["-" * 8 + ":"] * (len(rows[0]) - 1)) + "|")
    for name, outcomes in results.items():
        lines += [f"{name}: {o.state}: {o.name}: {o.detail}" for o in outcomes if o.state in ("differs", "not run")]
    return "\n".join([*lines, *terms()])


def terms() -> list[str]:
    """Return a line for each month: whether bits were compared, and why not."""
    lines = []
    for month in frozen.months():
        others = frozen.other_facts(month)
        bounds = f"{frozen.CLOSE:g} of the largest value, {frozen.CLOSE_STEPS:g} after optimiser steps"
        how = (
            f"this machine is another kind ({'; '.join(others)}): close is within {bounds}" if others else "bit by bit"
        )
        lines.append(f"{month.name}: {how}")
    return lines


def failed(results: dict[str, list[Outcome]]) -> bool:
    """Tell whether anything differs, or a part compared nothing; only parity may, where no references are given."""
    return not results or any(map(_bad, results.values()))


def _bad(outcomes: list[Outcome]) -> bool:
    compared = any(outcome.state in ("equal", "close") for outcome in outcomes)
    without = [outcome.detail for outcome in outcomes] == [NO_REFERENCES]
    return not (compared or without) or any(outcome.state == "differs" for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())
