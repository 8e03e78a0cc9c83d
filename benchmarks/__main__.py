"""Measure the table and write its figures: `python -m benchmarks --out docs/performance.json`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.campaign import added, run, wait_for_quiet
from benchmarks.page import missing, tables
from benchmarks.table import GROUPS, SETS, wanted_rows
from segatlas.files import whole_file

ROUNDS = 5
SCALING = "scaling"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    known = ", ".join((*GROUPS, *SETS, SCALING))
    parser.add_argument("--only", default="", help=f"groups or rows, joined by commas: {known}")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"below {ROUNDS}: a trial, nothing to quote")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file, replaced at the end")
    parser.add_argument("--add", action="store_true", help="keep the file's other rows; those of this run tell of it")
    arguments = parser.parse_args()
    rows, unknown = wanted_rows(arguments.only)
    with_scaling = not arguments.only or SCALING in unknown
    unknown = [word for word in unknown if word != SCALING]
    if unknown:
        parser.error(f"--only: {', '.join(unknown)}: neither a group nor a row; groups: {known}")
    if arguments.rounds >= ROUNDS:
        wait_for_quiet(say)
    report = run(rows, arguments.rounds, with_scaling=with_scaling, say=say)
    written = report
    if arguments.add:
        written = added(report, json.loads(arguments.out.read_text(encoding="utf-8")))
    with whole_file(arguments.out) as temporary:
        temporary.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print("\n".join([*tables(report), *missing(report)]))
    say(report["load"]["message"])
    say(f"written: {arguments.out}")
    return 0


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
