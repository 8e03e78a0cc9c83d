"""Print the tables of docs/results/multisource.md from finished runs and their evaluations.

    python tools/multisource_table.py RUNS pairs
    python tools/multisource_table.py RUNS camvid

`RUNS/ARM-SEED` is a run, `RUNS/ARM-SEED.log` what `/usr/bin/time -v` and the training wrote, `RUNS/evals/ARM-SEED/KIND`
an evaluation of it. Every number comes from these files; several seeds stand as their mean and, in brackets, each.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from results_page import cost, percent, read_times, table_head
from segatlas.data.formats.masks import read_mask
from segatlas.labels import IGNORE

SMALL = 0.02
"""Classes with less than this fraction of the labelled pixels of a split count as small."""

Reports = dict[str, dict[str, dict[str, Any]]]
"""Arm -> seed -> kind of evaluation -> report."""


def read_reports(runs: Path, start: str) -> Reports:
    """Return the evaluations of all arms whose name starts so."""
    found: Reports = defaultdict(lambda: defaultdict(dict))
    for file in sorted((runs / "evals").glob(f"{start}_*/*/eval.json")):
        arm, _, seed = file.parent.parent.name.rpartition("-")
        found[arm][seed][file.parent.name] = json.loads(file.read_text(encoding="utf-8"))
    return found


def small_classes(report: dict[str, Any]) -> list[str]:
    """Return the classes that have few of the labelled pixels, by the rows of the confusion matrix."""
    rows = [sum(row) for row in report["confusion"]]
    return [name for name, count in zip(report["classes"], rows, strict=True) if 0 < count < SMALL * sum(rows)]


def mean_iou(report: dict[str, Any], names: list[str]) -> float | None:
    """Return the mean IoU over some classes; None where there are none."""
    values = [row["iou"] for row in report["per_class"] if row["class"] in names and row["iou"] is not None]
    return sum(values) / len(values) if values else None


def several(values: list[float | None]) -> str:
    """Return the mean in percent, and each in brackets where there are several."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    each = f" ({', '.join(map(percent, known))})" if len(known) > 1 else ""
    return percent(sum(known) / len(known)) + each


def score_table(reports: Reports) -> list[str]:
    """Return mIoU of every arm by kind of evaluation."""
    kinds = list(dict.fromkeys(kind for seeds in reports.values() for kinds in seeds.values() for kind in kinds))
    lines = table_head(["mIoU %", *(kind.replace("_", ", ") for kind in kinds)])
    for arm, seeds in reports.items():
        cells = [several([s[k]["summary"]["miou"] for s in seeds.values() if k in s]) for k in kinds]
        lines.append(f"| {arm.partition('_')[2].replace('_', ' ')} | {' | '.join(cells)} |")
    return lines


def class_table(reports: Reports, kind: str = "test") -> list[str]:
    """Return IoU of every class on one kind of evaluation, and the mean of small classes."""
    whole = {arm: [s[kind] for s in seeds.values() if kind in s] for arm, seeds in reports.items()}
    whole = {arm: found for arm, found in whole.items() if found}
    if not whole:
        return []
    first = next(iter(whole.values()))[0]
    small = small_classes(first)
    lines = table_head([f"IoU %, {kind}", *(arm.partition("_")[2].replace("_", " ") for arm in whole)])
    for name in first["classes"]:
        mark = " (small)" if name in small else ""
        cells = [several([mean_iou(report, [name]) for report in found]) for found in whole.values()]
        lines.append(f"| {name}{mark} | {' | '.join(cells)} |")
    if small:
        cells = [several([mean_iou(report, small) for report in found]) for found in whole.values()]
        lines.append(f"| mean of small classes | {' | '.join(cells)} |")
    return lines


def cost_table(runs: Path, reports: Reports) -> list[str]:
    """Return parameters, processor time and memory of every arm."""
    lines = table_head(["", "parameters", "core-minutes", "peak memory, GiB"])
    for arm, seeds in reports.items():
        report = next(iter(next(iter(seeds.values())).values()))
        logs = [runs / f"{arm}-{seed}.log" for seed in seeds]
        costs = [cost(read_times(log)) for log in logs if log.exists()]
        told = [", ".join(f"{one[part]:.1f}" for one in costs) or "–" for part in (0, 1)]
        name = arm.partition("_")[2].replace("_", " ")
        lines.append(f"| {name} | {report['model']['parameters'] / 1e6:.2f} M | {told[0]} | {told[1]} |")
    return lines


def iou_of_masks(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the mIoU of masks (truth, found), over the codes that occur; 255 in a truth is left out."""
    counts = np.zeros(256 * 256, np.int64)
    for truth, found in pairs:
        known = truth != IGNORE
        counts += np.bincount(truth[known].astype(np.int64) * 256 + found[known], minlength=256 * 256)
    table = counts.reshape(256, 256)[:IGNORE]
    both = np.diag(table)
    either = table.sum(axis=0)[:IGNORE] + table.sum(axis=1) - both
    return float((both[either > 0] / either[either > 0]).mean())


def prior_itself(root: Path, split: str = "test") -> float:
    """Return the mIoU of the priors of a set of generated pairs, taken for predictions."""
    folder = root / split
    names = sorted(file.name for file in (folder / "masks").iterdir())
    return iou_of_masks((read_mask(folder / "masks" / name), read_mask(folder / "prior" / name)) for name in names)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("start", choices=("pairs", "camvid"))
    given = parser.parse_args()
    reports = read_reports(given.runs, given.start)
    if not reports:
        parser.error(f"{given.runs}/evals holds no evaluation of {given.start}_*")
    parts = [score_table(reports), class_table(reports), cost_table(given.runs, reports)]
    if given.start == "pairs" and (given.runs / "pairs").is_dir():
        told = percent(prior_itself(given.runs / "pairs"))
        parts.insert(1, [f"The priors of test as they are, taken for predictions: {told} %."])
    print("\n\n".join("\n".join(part) for part in parts if part))


if __name__ == "__main__":
    main()
