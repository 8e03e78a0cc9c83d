"""All numbers of one evaluation, with the records that say what they mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from segatlas.metrics.metric import Metric
from segatlas.metrics.number import Number
from segatlas.metrics.sections import ClassTable, Line, Matrix, Summary
from segatlas.renamed import old_attribute

IMAGES = Number(name="images", definition="Number of images counted.", format="count")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Numbers by name, fractions as 0..1, NaN = undefined. `scores.NAME` is the number of that name.

    classes: names of the K classes. images: how many were counted. metrics: what was counted, in order; `left_out` was
    not asked for, and its numbers are None as attributes. columns: name -> one value a class. whole: name -> value of
    the whole set; a name that is in both is the whole set's as an attribute. settings: how it was counted, in words.
    """

    classes: tuple[str, ...]
    images: int
    metrics: tuple[Metric, ...] = field(repr=False)
    left_out: tuple[Metric, ...] = field(default=(), repr=False)
    columns: Mapping[str, Sequence[float]]
    whole: Mapping[str, float]
    matrices: tuple[Matrix, ...] = field(default=(), compare=False)
    settings: tuple[str, ...] = ()

    pictures = old_attribute("pictures", "images")

    def __getattr__(self, name: str) -> Any:
        """Return a number of the whole set, else a tuple of one value a class, else None where it was left out."""
        if not name.startswith("_"):
            for values in (self.whole, self.columns):
                if name in values:
                    return values[name]
            if any(number.name == name for metric in self.left_out for number in metric.numbers):
                return None
        raise AttributeError(f"no number {name!r}; there are: {', '.join({**self.whole, **self.columns})}")

    @property
    def never_predicted(self) -> tuple[str, ...]:
        """The classes that the truth has and that were predicted nowhere; of metrics that do not count so, none."""
        lost: dict[str, None] = {}
        for number in self.numbers.values():
            if number.predicted and number.name in self.columns:
                pairs = zip(self.columns[number.name], self.columns[number.predicted], strict=True)
                lost |= {name: None for name, pair in zip(self.classes, pairs, strict=True) if pair[0] and not pair[1]}
        return tuple(lost)

    def summary(self) -> dict[str, float | int]:
        """Return the numbers about the whole set by name."""
        return {**self.whole, IMAGES.name: self.images}

    def per_class(self) -> list[dict[str, Any]]:
        """Return one row a class: its name under "class", then its numbers by name."""
        return [
            {"class": name} | {number: values[index] for number, values in self.columns.items()}
            for index, name in enumerate(self.classes)
        ]

    @property
    def numbers(self) -> dict[str, Number]:
        """The record of each number, in the order of tables."""
        return {number.name: number for metric in self.metrics for number in metric.numbers}

    @property
    def headline(self) -> Number:
        """The number of the whole set that ranks a model: the first that may be monitored, else the first of all."""
        return next(iter(self.monitored), self.numbers[next(iter(self.whole))])

    @property
    def monitored(self) -> tuple[Number, ...]:
        """The numbers that training may watch, the task's most telling one first."""
        return tuple(number for number in self.numbers.values() if number.monitored)

    @property
    def image(self) -> Number | None:
        """What the score of a single image means: that of the first metric."""
        return self.metrics[0].image

    @property
    def definitions(self) -> dict[str, str]:
        """What each number means: of the columns, then of the whole set, then of the single image."""
        numbers = self.numbers
        columns = [name for name in numbers if name in self.columns and name not in self.whole]
        shown = [numbers[name] for name in [*columns, *(name for name in numbers if name in self.whole)]]
        shown += [IMAGES, self.image] if self.image else [IMAGES]
        return {number.name: number.definition for number in shown}

    @property
    def sections(self) -> tuple[ClassTable | Summary | Matrix, ...]:
        """The parts of a report that these numbers make."""
        found: list[ClassTable | Summary | Matrix] = []
        columns = tuple(number for number in self.numbers.values() if number.heading and number.name in self.columns)
        if columns:
            totals = {number.name: sum(self.columns[number.name]) for number in columns if number.format == "count"}
            means = {number.name: self.whole[number.last_line] for number in columns if number.last_line}
            found.append(self._classes(columns, totals | means))
        lines = tuple(self._line(number) for number in self.numbers.values() if number.title)
        return (*found, Summary(lines=lines), *self.matrices)

    def _classes(self, columns: tuple[Number, ...], last_line: Mapping[str, float]) -> ClassTable:
        """Return the table of classes; of a metric of objects without the classes that have none, such as stuff."""
        rows = self.per_class()
        shown = [i for i, row in enumerate(rows) if not (self.metrics[0].of_objects and _is_empty(row, self.numbers))]
        return ClassTable(
            columns=columns,
            rows=[rows[index] for index in shown],
            last_line=last_line,
            indices=tuple(shown),
            left_out=tuple(row["class"] for index, row in enumerate(rows) if index not in shown),
        )

    def _line(self, number: Number) -> Line:
        counted = self.numbers.get(number.counted)
        note = counted.text(self.whole[counted.name]) if counted else ""
        return Line(number=number, value=self.whole[number.name], note=note, is_headline=number == self.headline)


def _is_empty(row: Mapping[str, Any], numbers: Mapping[str, Number]) -> bool:
    """Whether nothing of a class was counted: its counts are 0, its other numbers undefined."""
    values = [(numbers[name].format == "count", value) for name, value in row.items() if name in numbers]
    return all(value == 0 if is_count else math.isnan(value) for is_count, value in values)
