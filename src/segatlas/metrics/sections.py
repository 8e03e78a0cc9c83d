"""The parts of a report, as data: metrics, the task or the report itself make them, and each page shows every kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segatlas.metrics.number import Number


@dataclass(frozen=True, kw_only=True)
class ClassTable:
    """Numbers of each class. columns: in order. rows: a class's name under "class", then its numbers by name.

    last_line: number -> its value of the whole set, for the columns that have one. indices: which class each row is
    of, () = all in order. left_out: classes without a row, for there is nothing of them in truth and prediction.
    """

    title: str = "Classes"
    columns: tuple[Number, ...]
    rows: Sequence[Mapping[str, Any]]
    last_line: Mapping[str, float]
    indices: tuple[int, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """What is to be said below the table; "" where there is nothing."""
        return f"no objects, true or predicted: {', '.join(self.left_out)}" if self.left_out else ""

    @property
    def scores(self) -> tuple[Number, ...]:
        """The columns that are no counts."""
        return tuple(number for number in self.columns if number.format != "count")

    @property
    def counts(self) -> tuple[Number, ...]:
        """The columns of counts."""
        return tuple(number for number in self.columns if number.format == "count")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One number of the whole set. note: what it was got from. is_headline: it is the one that ranks models."""

    number: Number
    value: float
    note: str = ""
    is_headline: bool = False


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Numbers of the whole set."""

    title: str = "Whole set"
    lines: tuple[Line, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Matrix:
    """Counts of pairs. name: key in eval.json. values: (K, K) int64. names: of its rows and columns."""

    name: str
    title: str
    names: tuple[str, ...]
    values: np.ndarray = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The worst images, by the number that each has alone. entries: (value, key), the worst first."""

    title: str
    number: Number
    entries: Sequence[tuple[float, str]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Figures:
    """Drawn images. entries: (caption, PNG bytes); None = there is nothing to draw, and the caption says so."""

    title: str
    entries: Sequence[tuple[str, bytes | None]] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """Rows of text under headings; the first column holds names, the others numbers. note: said below, "" = nothing."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    note: str = ""


Section = ClassTable | Summary | Matrix | Ranking | Figures | TextTable
