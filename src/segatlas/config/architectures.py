"""Reads the config of an architecture: a frozen stdlib dataclass that knows nothing of pydantic.

`wrap` gives it pydantic's validation. The wrapping must say `extra="forbid"` itself: a bare TypeAdapter over a stdlib
dataclass drops unknown keys without a word.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from segatlas.config.encoder_keys import ENCODER, FLAT, HOST
from segatlas.config.messages import SchemaWords, explain, unknown
from segatlas.config.plain import value_problems
from segatlas.errors import Problem, SegAtlasError

T = TypeVar("T")


def wrap(config_type: type) -> TypeAdapter[Any]:
    """Return a validator of the dataclass that refuses unknown keys. Nested dataclasses are wrapped likewise."""
    strict = ConfigDict(extra="forbid", allow_inf_nan=False)
    return TypeAdapter(pydantic_dataclass(config_type, frozen=True, kw_only=True, config=strict))


def read_fields(
    config_type: type[T],
    fields: Mapping[str, Any],
    *,
    strict: bool = False,
    ready: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[T | None, list[Problem]]:
    """Make a frozen dataclass from outside values: every key known, every value of its type, all faults at once.

    Args:
        config_type: a stdlib dataclass. Lists become tuples, nested mappings nested dataclasses.
        fields: plain values.
        strict: take no text for a number, nor a number for true or false, as in a recipe.
        ready: values of further fields, which have defaults; they are taken as they are.

    Returns:
        An instance of exactly this class, None where there are problems; these, with the fields as their keys, "" for
        what the dataclass itself says of values that do not fit each other.
    """
    data = dict(fields)
    if problems := value_problems(data):
        return None, problems
    adapter = wrap(config_type)
    try:
        # strictly as JSON, so that lists become tuples
        checked = adapter.validate_json(json.dumps(data), strict=True) if strict else adapter.validate_python(data)
        # pydantic returns an instance of a subclass that it made; callers get exactly the class they named
        values = {field.name: getattr(checked, field.name) for field in dataclasses.fields(config_type)}  # type: ignore[arg-type]
        return config_type(**(values | dict(ready))), []
    except ValidationError as error:
        return None, explain(error.errors(include_url=False), data, SchemaWords(adapter.json_schema()))
    except SegAtlasError as error:
        return None, [Problem(key="", message=str(error))]


def in_section(
    problem: Problem, section: str, known: Iterable[str], what: str = "key", *, hosted: bool | None = None
) -> Problem:
    """Return a problem of a group of keys as one of the section that it stands in.

    Args:
        problem: its key is a field of the group, or "" for the group itself.
        section: dotted key of the group; "" where its keys are told by themselves.
        known: keys that may stand there, for naming the one nearest to an unknown key.
        what: what an unknown key is called.
        hosted: of the keys of a network, whether it is around another; None for other groups.
    """
    known = list(known)
    if not problem.key:
        return replace(problem, key=section)
    stranger = "." not in problem.key and problem.key not in known
    message = unknown(what, problem.key, known) if stranger else problem.message
    if stranger and problem.key in (ENCODER, *FLAT) and hosted is not None:
        message = (
            f"this network has the encoder of its host: did you mean '{HOST}.{problem.key}'?"
            if hosted
            else "this network has no encoder to choose: leave the key out"
        )
    return replace(problem, key=f"{section}.{problem.key}" if section else problem.key, message=message)
