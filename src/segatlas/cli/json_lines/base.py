"""What the lines of `--json` have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

Number = float | None
"""A number, or null where it is undefined."""


class JsonLine(BaseModel):
    """A group of keys, and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class CountedLine(JsonLine):
    """Keys that are always there, and further ones that are counts or lists of files by what they are."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int]


class FailedLine(JsonLine):
    """An input that could not be used."""

    source: str = Field(description="file or address")
    error: str = Field(description="what is wrong with it")
