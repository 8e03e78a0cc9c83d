"""Checks the config of an architecture: a frozen stdlib dataclass that knows nothing of pydantic.

`wrap` gives it pydantic's validation. The wrapping must say `extra="forbid"` itself: a bare TypeAdapter over a stdlib
dataclass drops unknown keys without a word.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from segatlas.config.messages import SchemaWords, explain, unknown
from segatlas.errors import Problem, SegAtlasError


def wrap(config_type: type) -> TypeAdapter[Any]:
    """Return a validator of the dataclass that refuses unknown keys. Nested dataclasses are wrapped likewise."""
    strict = ConfigDict(extra="forbid", allow_inf_nan=False)
    return TypeAdapter(pydantic_dataclass(config_type, frozen=True, kw_only=True, config=strict))


def check_fields(
    config_type: type, fields: Mapping[str, Any], *, section: str = "model", further: Iterable[str] = ()
) -> list[Problem]:
    """Check the fields that would make a `config_type`.

    Args:
        config_type: the architecture's config dataclass.
        fields: plain values as they stand in a recipe. Fields that the dataset decides must be filled in.
        section: the group of the recipe that the fields stand in; the problems' keys begin with it.
        further: keys that may stand in the same section besides, for naming the nearest one.
    """
    adapter = wrap(config_type)
    data = dict(fields)
    try:
        adapter.validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        found = explain(error.errors(include_url=False), data, SchemaWords(adapter.json_schema()))
    except SegAtlasError as error:  # the dataclass itself refused values that do not fit each other
        found = [Problem(key="", message=str(error))]
    else:
        return []
    known = [*adapter.json_schema()["properties"], *further]
    return [_in_section(problem, section, known) for problem in found]


def _in_section(problem: Problem, section: str, known: list[str]) -> Problem:
    if not problem.key:
        return replace(problem, key=section)
    stranger = "." not in problem.key and problem.key not in known
    message = unknown("key", problem.key, known) if stranger else problem.message
    return replace(problem, key=f"{section}.{problem.key}", message=message)
