"""One number of a metric, with all that is ever said about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

UNDEFINED = "–"


@dataclass(frozen=True, kw_only=True)
class Number:
    """One number of a metric: of each class, of the whole set, or both under one name.

    name: its key in eval.json. definition: what it means, in one sentence.
    heading: of its column in the table of classes, "" = it has none; columns of counts stand last.
    of_sum: of a count, whether the terminal shows it as a fraction of its sum over the classes.
    title: of its line about the whole set, "" = it has none. label: short name for headlines and logs, default title.
    format: percent, of a fraction 0..1; plain, as it is; count, a whole number.
    last_line: the number of the whole set on the last line of its column, "" = there is none.
    counted: the count that it was got from, written beside it. unit: of a count, in the singular.
    predicted: of a count of the truth, the number that counts the same of what was predicted.
    """

    name: str
    definition: str
    heading: str = ""
    title: str = ""
    label: str = ""
    format: Literal["percent", "plain", "count"] = "percent"
    higher_is_better: bool = True
    monitored: bool = False
    last_line: str = ""
    counted: str = ""
    of_sum: bool = False
    unit: str = ""
    predicted: str = ""

    @property
    def short(self) -> str:
        """What headlines and logs call it."""
        return self.label or self.title or self.heading or self.name

    def text(self, value: float, digits: int = 2, *, unit: bool = True) -> str:
        """Return a value in words; `digits` of a percentage, plain numbers have two more. A dash where undefined."""
        if math.isnan(value):
            return UNDEFINED
        if self.format == "count":
            return f"{value:.0f}" + (f" {self.unit}{'' if value == 1 else 's'}" if unit and self.unit else "")
        if self.format == "plain":
            return f"{value:.{digits + 2}f}"
        return f"{100 * value:.{digits}f}" + (" %" if unit else "")
