"""Fill docs/results/NAME.md from finished runs: every number comes from the files that the named commands left.

The page is written by hand but for what stands between its two `numbers` comments.

    python tools/results_page.py camvid RUN... --evaluation "test, flips" FILE --time LOG... --images FILE...

The last run is the result; a run before it is what it started from.

Photographs and labels of a dataset are never copied (licences): the page shows curves, confusion and predicted maps.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from segatlas.files import whole_file

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- numbers: written by tools/results_page.py -->", "<!-- end of numbers -->"
COLUMNS = ("iou", "precision", "recall", "boundary_iou", "boundary_f")


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


STOPPED = 30 * 60
"""Seconds without a line of the log from which on a run stood still, interrupted and resumed later."""


def read_times(path: Path) -> list[dict[str, str]]:
    """Return what each `/usr/bin/time -v` appended to a log, by name: one for a run, more where it was resumed."""
    found: list[dict[str, str]] = []
    for line in path.read_text().splitlines():
        name, _, value = line.strip().partition(": ")
        if line.startswith("\tCommand being timed"):
            found.append({})
        if line.startswith("\t") and found:
            found[-1][name] = value
    return found


def cost(starts: list[dict[str, str]]) -> tuple[float, float]:
    """Return the core-minutes of all starts of a run together, and the peak memory of any, in GiB."""
    seconds = sum(float(one[f"{kind} time (seconds)"]) for one in starts for kind in ("User", "System"))
    return seconds / 60, max(int(one["Maximum resident set size (kbytes)"]) for one in starts) / 2**20


def wall_minutes(log: Path) -> float:
    """Return the minutes that a run took by its log, without those in which it was stopped."""
    stamps = [line[:19] for line in log.read_text().splitlines() if line[:2] == "20"]
    times = [datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S") for stamp in stamps]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    return sum(gap for gap in gaps if gap < STOPPED) / 60


def table_head(cells: list[str]) -> list[str]:
    return ["| " + " | ".join(cells) + " |", "|---" * len(cells) + "|"]


def class_table(report: dict) -> list[str]:
    shown = [name for name in COLUMNS if name in report["per_class"][0]]
    lines = [
        "| class | " + " | ".join(name.replace("_", " ") + " %" for name in shown) + " |",
        "|---" * (len(shown) + 1) + "|",
    ]
    for row in report["per_class"]:
        lines.append(f"| {row['class']} | " + " | ".join(percent(row[name]) for name in shown) + " |")
    return lines


def summary_table(reports: dict[str, dict]) -> list[str]:
    names = ("miou", "miou_ground_truth_only", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "kappa")
    lines = [
        "| evaluation | " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for title, report in reports.items():
        cells = [percent(report["summary"].get(name)) for name in names]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def validations(metrics: Path) -> list[str]:
    rows = [row for row in csv.DictReader(metrics.open()) if row["val_miou"]]
    lines = table_head(["step", "val mIoU %"])
    return lines + [f"| {row['step']} | {percent(float(row['val_miou']))} |" for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--evaluation", nargs=2, action="append", default=[], metavar=("TITLE", "FILE"))
    parser.add_argument("--time", type=Path, nargs="*", default=[], help="logs that end with /usr/bin/time -v")
    parser.add_argument("--images", type=Path, nargs="*", default=[], help="predicted maps to show")
    arguments = parser.parse_args()
    folder = ROOT / "docs" / "results"
    images = folder / arguments.name
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir(parents=True)
    run = arguments.runs[-1]
    main_report = json.loads((run / "eval.json").read_text())
    environment = json.loads((run / "env.json").read_text())
    reports = {main_report["data"]["split"]: main_report}
    reports |= {title: json.loads(Path(file).read_text()) for title, file in arguments.evaluation}
    plots = {f"curves_{part.name}": part / "plots" / "curves.png" for part in arguments.runs}
    plots["confusion"] = run / "plots" / "confusion.png"
    for name, file in plots.items():
        shutil.copy(file, images / f"{name}.png")
    for image in arguments.images:
        shutil.copy(image, images / image.name)
    facts = [
        f"parameters {main_report['model']['parameters'] / 1e6:.2f} M",
        f"{environment['cores']} cores, {environment['platform']}, torch {environment['packages']['torch']}",
        f"seed {environment['seed']}",
        f"wall time {sum(wall_minutes(part / 'log.txt') for part in arguments.runs):.1f} minutes with final evaluation",
        f"date {datetime.fromtimestamp((run / 'eval.json').stat().st_mtime):%Y-%m-%d}",
    ]
    if arguments.time:
        minutes, peak = cost([part for log in arguments.time for part in read_times(log)])
        facts.insert(4, f"processor time {minutes:.1f} core-minutes: {minutes / 2:.1f} minutes of two cores")
        facts.insert(5, f"peak memory {peak:.1f} GiB")
    lines = [*summary_table(reports), "", *(f"- {fact}" for fact in facts), ""]
    lines += ["### Classes, " + main_report["data"]["split"], "", *class_table(main_report), ""]
    for part in arguments.runs:
        lines += [f"### Validation while training: {part.name}", "", *validations(part / "metrics.csv"), ""]
    shown = [*(f"{name}.png" for name in plots), *(image.name for image in arguments.images)]
    for name in shown:
        lines += [f"![{Path(name).stem}]({arguments.name}/{name})", ""]
    page = folder / f"{arguments.name}.md"
    head, tail = page.read_text().split(BEGIN)[0], page.read_text().split(END)[1]
    with whole_file(page) as temporary:
        temporary.write_text(head + BEGIN + "\n\n" + "\n".join(lines) + "\n" + END + tail, encoding="utf-8")


if __name__ == "__main__":
    main()
