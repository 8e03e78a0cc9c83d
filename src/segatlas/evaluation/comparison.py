"""Two models or more on the same images: each run with its numbers, the spread of seeds, differences with intervals.

A model stands for one or several runs, its seeds. What seeds do is shown before any mean: a difference of means that is
smaller than the spread of the runs of one model says little, whatever its interval. The interval is that of the paired
bootstrap over images (`bootstrap`) of the difference of the means of the runs; it knows nothing of other seeds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segatlas.errors import DataError, UsageError
from segatlas.evaluation.bootstrap import CLASS, DRAWS, PERCENTILES, Measured, bootstrap, interval, of_whole_set
from segatlas.evaluation.image_counts import ImageCounts
from segatlas.evaluation.report import Report
from segatlas.files import whole_file
from segatlas.metrics.number import Number
from segatlas.metrics.small_classes import OPTION, indices_of

COMPARISON_FILE = "compare.json"
MOST_IMAGES = 5
"""Images named that gain most, and that lose most."""

DEFINITIONS = {
    "spread": "The highest minus the lowest of the runs of a model.",
    "difference": "Mean of the runs of the second model minus mean of the runs of the first, each run's number "
    "computed from the counts of the whole set.",
    "interval": "From the 2.5th to the 97.5th percentile of that difference over the draws of a paired bootstrap: a "
    "draw takes N of the N images with replacement, the same for all runs, adds up their counts and computes every "
    "number from the sums.",
    "better": "Fraction of those draws in which the second model's number is the higher one.",
    "pairs": "Where both models have as many runs, the difference of the first run of each, of the second, and so on, "
    "each with its own interval.",
    "image_difference": "Mean over the runs of the mIoU of one image alone, second model minus first.",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparedModel:
    """One model: its runs, in order. label: short. values: number -> that of each run."""

    label: str
    runs: tuple[Report, ...] = field(repr=False)
    values: Mapping[str, tuple[float, ...]]

    def mean(self, name: str) -> float:
        """Return the mean of the runs; NaN where one is undefined."""
        return float(np.mean(self.values[name]))

    def spread(self, name: str) -> float:
        """Return the highest minus the lowest of the runs; 0 of one run."""
        return max(self.values[name]) - min(self.values[name])


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A number of the second model minus that of the first. better: fraction of draws in which it is above 0."""

    value: float
    low: float
    high: float
    better: float

    def to_dict(self) -> dict[str, float]:
        """Return plain values."""
        return {"difference": self.value, "low": self.low, "high": self.high, "better": self.better}


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairing:
    """A model beside the first one. means: of the runs' means. pairs: run by run, () where there are not as many."""

    first: ComparedModel
    second: ComparedModel
    means: Mapping[str, Difference]
    pairs: tuple[Mapping[str, Difference], ...]
    images: tuple[tuple[str, float], ...] = field(repr=False)
    """Key of each image whose own mIoU is defined for both, and the difference of that."""

    def is_within_spread(self, name: str) -> bool:
        """Whether a difference of means is no larger than the spread of the runs of one of the two."""
        return abs(self.means[name].value) <= max(self.first.spread(name), self.second.spread(name))


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Models on the same images. numbers: what was computed, in the order of tables."""

    models: tuple[ComparedModel, ...]
    pairings: tuple[Pairing, ...]
    numbers: Mapping[str, Number]
    images: int
    draws: int
    seed: int

    @property
    def whole(self) -> list[str]:
        """The numbers that are no single class's."""
        return [name for name in self.numbers if not name.startswith(CLASS)]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types only; undefined numbers are None."""
        first = self.models[0].runs[0]
        plain: dict[str, Any] = {
            "version": 1,
            "data": {"name": first.data.name, "split": first.data.split, "images": self.images},
            "draws": self.draws,
            "seed": self.seed,
            "percentiles": list(PERCENTILES),
            "models": [_model(model) for model in self.models],
            "differences": [self._difference(pairing) for pairing in self.pairings],
            "definitions": {
                **{name: number.definition for name, number in self.numbers.items()},
                **DEFINITIONS,
            },
        }
        without_nan: dict[str, Any] = _plain(plain)
        return without_nan

    def to_json(self, path: str | Path) -> Path:
        """Write `compare.json` whole or not at all. Raises DataError where it cannot be written."""
        path = Path(path)
        path = path / COMPARISON_FILE if path.is_dir() else path
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        with whole_file(path) as temporary:
            temporary.write_bytes((text + "\n").encode("utf-8", "backslashreplace"))
        return path

    def _difference(self, pairing: Pairing) -> dict[str, Any]:
        return {
            "first": pairing.first.label,
            "second": pairing.second.label,
            "means": {
                name: {**one.to_dict(), "within_spread": pairing.is_within_spread(name)}
                for name, one in pairing.means.items()
            },
            "pairs": [{name: one.to_dict() for name, one in pair.items()} for pair in pairing.pairs],
            "images": [{"key": key, "image_difference": value} for key, value in pairing.images],
        }


def compare_models(
    groups: Sequence[Sequence[Report]], labels: Sequence[str], *, draws: int = DRAWS, seed: int = 0
) -> Comparison:
    """Compare models, each with the first.

    Args:
        groups: the reports of each model's runs, scored with `keep_counts`.
        labels: what the models are called.
        draws: of the bootstrap.
        seed: of its draws.

    Raises:
        UsageError: fewer than two models, reports without counts, or a number of draws below 1.
        DataError: other classes, other images, images with another truth, or numbers that are defined otherwise.
    """
    if len(groups) < 2 or not all(groups):
        raise UsageError(f"compare: got {len(groups)} models, expected two or more, each of a run or several")
    if draws < 1:
        raise UsageError(f"draws: got {draws}, expected 1 or more")
    flat = [report for group in groups for report in group]
    counts = [_counts_of(report) for report in flat]
    check_same(flat)
    first = flat[0]
    with_sizes = all(one.with_sizes for one in counts)
    for other in flat[1:]:
        if fault := options_fault(first.settings.options, other.settings.options, ("size_bounds",) * with_sizes):
            raise DataError(f"{first.model.path} and {other.model.path} {fault}")
    small = tuple(first.settings.options.get(OPTION) or ())
    measured = Measured(
        classes=first.scores.classes,
        small=indices_of(small, first.scores.classes),
        with_sizes=with_sizes,
    )
    whole = [of_whole_set(one, measured) for one in counts]
    drawn = bootstrap(counts, measured, draws=draws, seed=seed)
    models, places, start = [], [], 0
    for group, label in zip(groups, labels, strict=True):
        place = slice(start, start := start + len(group))
        places.append(place)
        values = {name: tuple(run[name] for run in whole[place]) for name in whole[0]}
        models.append(ComparedModel(label=label, runs=tuple(group), values=values))
    pairings = [
        _pairing(models[0], model, drawn[places[0]], drawn[place])
        for model, place in zip(models[1:], places[1:], strict=True)
    ]
    numbers = {name: _number(name, first) for name in whole[0]}
    return Comparison(
        models=tuple(models),
        pairings=tuple(pairings),
        numbers=numbers,
        images=len(first.images),
        draws=draws,
        seed=seed,
    )


def options_fault(first: Mapping[str, Any], other: Mapping[str, Any], shared: Sequence[str]) -> str:
    """Say in what the numbers of two models are defined otherwise; "" where in nothing.

    Args:
        first: options of the metrics, by the names of their keys.
        other: likewise.
        shared: those that both are scored with. Small classes that one of the two names alone are taken for both.
    """
    named = (OPTION,) if first.get(OPTION) and other.get(OPTION) else ()
    for key in (*shared, *named):
        one, two = (_told(options.get(key)) for options in (first, other))
        if one != two:
            return f"are scored with eval.{key}={one} and {two}, which are other numbers: name one: 'eval.{key}={one}'"
    return ""


def _told(value: Any) -> str:
    """Return the value of an option as a recipe has it."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_told, value))}]"
    return f"{value:g}" if isinstance(value, float | int) else str(value)


def check_same(reports: Sequence[Report]) -> None:
    """Raise DataError where reports are not of the same classes, images and truths."""
    first = reports[0]
    for other in reports[1:]:
        if first.scores.classes != other.scores.classes:
            raise DataError(f"{first.model.path} and {other.model.path} have different classes")
        if [image.key for image in first.images] != [image.key for image in other.images]:
            raise DataError(
                f"{first.model.path} could score {len(first.images)} images, {other.model.path} "
                f"{len(other.images)}, not the same ones: they cannot be compared"
            )
        if first.counts is None or other.counts is None:
            continue
        differing = (first.counts.pixels[..., 0] != other.counts.pixels[..., 0]).any(axis=1)
        if differing.any():
            key = first.images[int(np.flatnonzero(differing)[0])].key
            raise DataError(
                f"{first.model.path} and {other.model.path} were scored with different masks: in "
                f"{int(differing.sum())} images the pixels of classes differ, first in {key} "
                f"({first.data.root} and {other.data.root})"
            )


def _counts_of(report: Report) -> ImageCounts:
    if report.counts is None:
        raise UsageError(f"{report.model.path}: its report holds no counts of single images; score with keep_counts")
    return report.counts


def _pairing(
    first: ComparedModel,
    second: ComparedModel,
    drawn: Sequence[Mapping[str, np.ndarray]],
    other: Sequence[Mapping[str, np.ndarray]],
) -> Pairing:
    names = list(first.values)
    means = {
        name: _difference_of(
            second.mean(name) - first.mean(name),
            np.mean([run[name] for run in other], axis=0) - np.mean([run[name] for run in drawn], axis=0),
        )
        for name in names
    }
    pairs = [
        {name: _difference_of(second.values[name][i] - first.values[name][i], other[i][name] - drawn[i][name])
         for name in names}
        for i in range(len(drawn) if len(drawn) == len(other) > 1 else 0)
    ]  # fmt: skip
    scores = [
        np.mean([[image.score for image in run.images] for run in model.runs], axis=0) for model in (first, second)
    ]
    images = [
        (image.key, float(value))
        for image, value in zip(first.runs[0].images, scores[1] - scores[0], strict=True)
        if not math.isnan(value)
    ]
    return Pairing(first=first, second=second, means=means, pairs=tuple(pairs), images=tuple(images))


def _difference_of(value: float, drawn: np.ndarray) -> Difference:
    low, high = interval(drawn)
    defined = drawn[~np.isnan(drawn)]
    better = float((defined > 0).mean()) if len(defined) else math.nan
    return Difference(value=value, low=low, high=high, better=better)


def _number(name: str, report: Report) -> Number:
    """Return the record of a number; of a class's IoU one with the class's name."""
    if not name.startswith(CLASS):
        return report.scores.numbers[name]
    label = name.removeprefix(CLASS)
    return Number(name=name, title=f"IoU {label}", definition=f"The iou of the class {label}.")


def _model(model: ComparedModel) -> dict[str, Any]:
    return {
        "label": model.label,
        "runs": [
            {
                "path": run.model.path,
                "question": run.question,
                "values": {name: values[index] for name, values in model.values.items()},
                "image_miou": [image.score for image in run.images],
            }
            for index, run in enumerate(model.runs)
        ],
        "mean": {name: model.mean(name) for name in model.values},
        "spread": {name: model.spread(name) for name in model.values},
    }


def _plain(value: Any) -> Any:
    """Turn tuples into lists and NaN into None, all the way down."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
