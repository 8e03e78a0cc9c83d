"""Print the tables of a results page from a comparison of several seeds: the spread first, then the differences.

    segatlas eval A_s0,A_s1 B_s0,B_s1 --compare --out COMPARED
    python tools/comparison_table.py COMPARED/compare.json [--first "U-Net" --second "with AFMA"] [--time LOG …]

Percent and points. Every number stands in the file that `eval --compare` wrote; LOG is what `/usr/bin/time -v` wrote of
each run, in the order of the runs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results_page import cost, percent, read_times, table_head
from segatlas.evaluation.bootstrap import CLASS


def spread_table(facts: dict[str, Any], titles: Sequence[str], numbers: Sequence[str]) -> list[str]:
    """Return each run's numbers, and behind those of a model how far they are apart."""
    columns = ["%"]
    for title, model in zip(titles, facts["models"], strict=True):
        columns += [f"{title}, {index + 1}" for index in range(len(model["runs"]))] + ["spread"]
    lines = table_head(columns)
    for name in numbers:
        cells = []
        for model in facts["models"]:
            cells += [percent(run["values"][name]) for run in model["runs"]] + [percent(model["spread"][name])]
        lines.append(f"| {told(name)} | {' | '.join(cells)} |")
    return lines


def difference_table(facts: dict[str, Any], titles: Sequence[str], numbers: Sequence[str]) -> list[str]:
    """Return the means of both, their difference, its interval over images, and the difference of each pair of runs."""
    found = facts["differences"][0]
    pairs = [f"pair {index + 1}" for index in range(len(found["pairs"]))]
    lines = table_head(["%, points", *titles, "difference", "95 % over images", *pairs])
    for name in numbers:
        one = found["means"][name]
        mark = " *" if one["within_spread"] else ""
        cells = [percent(model["mean"][name]) for model in facts["models"]]
        cells += [points(one["difference"]) + mark, interval(one)]
        cells += [points(pair[name]["difference"]) if name in pair else "–" for pair in found["pairs"]]
        lines.append(f"| {told(name)} | {' | '.join(cells)} |")
    return lines


def time_table(logs: Sequence[Path]) -> list[str]:
    """Return the processor time and memory of each run, over all of its starts."""
    lines = table_head(["run", "core-minutes", "peak memory, GiB"])
    for log in logs:
        minutes, memory = cost(read_times(log))
        lines.append(f"| {log.stem} | {minutes:.1f} | {memory:.1f} |")
    return lines


def told(name: str) -> str:
    """Return the name of a number as a table says it."""
    return name.removeprefix(CLASS).replace("_", " ")


def points(value: float | None) -> str:
    """Return a difference in points, with its sign."""
    return "–" if value is None else f"{100 * value:+.2f}"


def interval(one: dict[str, Any]) -> str:
    """Return the interval of a difference."""
    return "–" if one["low"] is None else f"{points(one['low'])} to {points(one['high'])}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--first", default="first")
    parser.add_argument("--second", default="second")
    parser.add_argument("--time", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    facts = json.loads(given.file.read_text(encoding="utf-8"))
    titles = (given.first, given.second)
    whole = [name for name in facts["models"][0]["mean"] if not name.startswith(CLASS)]
    everything = list(facts["differences"][0]["means"])
    parts = [spread_table(facts, titles, whole), difference_table(facts, titles, everything)]
    if given.time:
        parts.append(time_table(given.time))
    print("\n\n".join("\n".join(part) for part in parts))


if __name__ == "__main__":
    main()
