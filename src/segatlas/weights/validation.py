"""Make a frozen dataclass from outside data: every key must be known, every value of its type, all faults at once."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

from segatlas.errors import Problem

T = TypeVar("T")


class FieldsError(ValueError):
    """Data that does not fit a dataclass; carries every fault."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        super().__init__(render(problems))


def render(problems: list[Problem]) -> str:
    """Return one line a problem: key, value, fault."""
    return "\n".join(f"  {p.key}{f' = {p.got}' if p.got else ''}: {p.message}" for p in problems)


def validated(cls: type[T], data: Mapping[str, Any]) -> T:
    """Build the stdlib dataclass `cls` from `data`, with lists as tuples and nested mappings as nested dataclasses.

    Raises:
        FieldsError: unknown or missing keys, or values of another type.
    """
    from pydantic import ValidationError

    adapter: Any = _adapter(cls)  # type: ignore[arg-type]
    try:
        checked = adapter.validate_python(dict(data))
    except ValidationError as error:
        raise FieldsError([_problem(cls, dict(fault)) for fault in error.errors(include_url=False)]) from None
    # pydantic returns an instance of a subclass it made; callers get exactly the class they named
    return cls(**{field.name: getattr(checked, field.name) for field in dataclasses.fields(cls)})  # type: ignore[arg-type]


@cache
def _adapter(cls: type) -> Any:
    from pydantic import ConfigDict, TypeAdapter
    from pydantic.dataclasses import dataclass

    return TypeAdapter(dataclass(cls, config=ConfigDict(extra="forbid"), frozen=True, kw_only=True))


def _problem(cls: type, fault: dict[str, Any]) -> Problem:
    location: tuple[Any, ...] = fault["loc"]
    key = ".".join(map(str, location))
    if fault["type"] == "missing":
        return Problem(key=key, message="missing")
    got = repr(fault["input"])
    got = got if len(got) <= 60 else got[:57] + "..."
    if fault["type"] == "unexpected_keyword_argument":
        known = [field.name for field in dataclasses.fields(_class_at(cls, location[:-1]))]
        return Problem(key=key, got=got, message="unknown field; " + nearest(str(location[-1]), known))
    return Problem(key=key, got=got, message=fault["msg"].replace("Input should", "should", 1))


def _class_at(cls: Any, location: tuple[Any, ...]) -> Any:
    """Return the dataclass that lies at `location` inside `cls`, or the innermost one on the way."""
    for name in location:
        inner = typing.get_type_hints(cls).get(name)
        if not dataclasses.is_dataclass(inner):
            break
        cls = inner
    return cls


def nearest(name: str, known: list[str]) -> str:
    """Return "did you mean ...?" for the closest known names, or the list of them all where none is close."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(repr(word) for word in close)}?"
    return f"known: {', '.join(known)}"
