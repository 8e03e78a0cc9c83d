"""The numbers of reports as two tables that other programs read: a row a class, and a row an image, of each model."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segatlas.evaluation.report import Report
from segatlas.files import whole_file

CLASS_FILE, IMAGE_FILE = "per_class.csv", "per_image.csv"


def write_tables(reports: Sequence[Report], folder: Path) -> list[Path]:
    """Write `per_class.csv` and `per_image.csv` into a folder and return them; earlier ones are replaced.

    Fractions are 0..1, what is undefined is empty. Where a report kept the counts of its images, a row of an image also
    holds the IoU of each class, as `iou CLASS`.

    Raises:
        DataError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {CLASS_FILE: _classes(reports), IMAGE_FILE: _images(reports)}
    for name, rows in files.items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        with (
            whole_file(folder / name) as temporary,
            temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows([[_cell(row.get(column)) for column in columns] for row in rows])
    return [folder / name for name in files]


def _classes(reports: Iterable[Report]) -> list[dict[str, Any]]:
    return [
        {"model": report.model.path, "split": report.data.split, **row}
        for report in reports
        for row in report.per_class
    ]


def _images(reports: Iterable[Report]) -> list[dict[str, Any]]:
    rows = []
    for report in reports:
        name = report.scores.image.name if report.scores.image else ""
        for image, own in zip(report.images, _class_ious(report), strict=True):
            score = {name: image.score} if name else {}
            facts = {"model": report.model.path, "split": report.data.split, "key": image.key, "file": image.file}
            rows.append({**facts, **score, **own})
    return rows


def _class_ious(report: Report) -> list[Mapping[str, float]]:
    """Return class -> IoU of each image; nothing of each where counts were not kept."""
    if report.counts is None:
        return [{} for _ in report.images]
    names = [f"iou {name}" for name in report.scores.classes]
    truth, found, both = np.moveaxis(report.counts.pixels, 2, 0)
    union = truth + found - both
    ious = np.where(union > 0, both / np.maximum(union, 1), math.nan)
    return [dict(zip(names, row.tolist(), strict=True)) for row in ious]


def _cell(value: Any) -> Any:
    """Return a number as short as it can be read back, and nothing for what is undefined."""
    if isinstance(value, float):
        return "" if not math.isfinite(value) else f"{value:.6g}"
    return "" if value is None else value
