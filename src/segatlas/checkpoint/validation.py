"""Make a frozen dataclass from outside data: every key must be known, every value of its type, all faults at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from segatlas.config.architectures import wrap
from segatlas.config.messages import SchemaWords, explain
from segatlas.config.plain import value_problems
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
    return f"  {shortened(problem.key, 100)}{printable(got)}: {printable(problem.message)}"


def validated(cls: type[T], data: Mapping[str, Any]) -> T:
    """Build the stdlib dataclass `cls` from `data`, with lists as tuples and nested mappings as nested dataclasses.

    Raises:
        FieldsError: unknown or missing keys, values of another type, or numbers that nothing can hold.
    """
    from pydantic import ValidationError

    adapter, plain = wrap(cls), dict(data)
    problems = value_problems(plain)
    if problems:
        raise FieldsError(problems)
    try:
        checked = adapter.validate_python(plain)
    except ValidationError as error:
        words = SchemaWords(adapter.json_schema())
        raise FieldsError(explain(error.errors(include_url=False), plain, words)) from None
    # pydantic returns an instance of a subclass that it made; callers get exactly the class they named
    return cls(**{field.name: getattr(checked, field.name) for field in dataclasses.fields(cls)})  # type: ignore[arg-type]
