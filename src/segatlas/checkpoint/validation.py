"""Make a frozen dataclass from outside data: every key must be known, every value of its type, all faults at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from segatlas.config.architectures import read_fields
from segatlas.errors import Problem
from segatlas.printable import printable, shortened

T = TypeVar("T")


class FieldsError(ValueError):
    """Data that does not fit a dataclass; carries every fault, and prints one a line."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        super().__init__("\n".join(map(_line, problems)))


def _line(problem: Problem) -> str:
    got = f" = {problem.got}" if problem.got else ""
    key = f"{shortened(problem.key, 100)}{printable(got)}: " if problem.key else ""
    return f"  {key}{printable(problem.message)}"


def validated(cls: type[T], data: Mapping[str, Any]) -> T:
    """Build the stdlib dataclass `cls` from `data`, with lists as tuples and nested mappings as nested dataclasses.

    Raises:
        FieldsError: unknown or missing keys, values of another type, or numbers that nothing can hold.
    """
    made, problems = read_fields(cls, data)
    if made is None:
        raise FieldsError(problems)
    return made
