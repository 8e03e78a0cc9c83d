from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from segatlas.config.messages import SchemaWords, nearest, show, unknown


class Inner(BaseModel):
    """A group."""

    depth: int = 1


class Outer(BaseModel):
    count: Annotated[int, Field(ge=1, le=9)] = 1
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    flag: bool = False
    word: str = ""
    mode: Literal["whole", "slide"] = "whole"
    size: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = None
    weights: tuple[float, ...] | Literal["auto"] = "auto"
    colors: tuple[tuple[int, int, int], ...] = ()
    table: dict[int, int] = {}
    resize: str | None = Field(None, pattern="^x$", description="short:N or HxW; more")
    inner: Inner | None = None


WORDS = SchemaWords(Outer.model_json_schema())


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("count", "a whole number, at least 1, at most 9"),
        ("factor", "a number, above 0, below 1"),
        ("flag", "true or false"),
        ("word", "text"),
        ("mode", "one of: whole, slide"),
        ("size", "a list of 2 whole numbers, each above 0"),
        ("weights", "a list of numbers or 'auto'"),
        ("colors", "a list of lists of 3 whole numbers"),
        ("table", "a group of `key: value` lines"),
        ("resize", "short:N or HxW"),
        ("inner", "a group of keys"),
    ],
)
def test_what_a_key_expects_is_said_in_words(key: str, expected: str) -> None:
    schema = WORDS.at([key], {})
    assert schema is not None
    assert WORDS.expected(schema) == expected


def test_the_keys_of_a_group_are_found_by_its_path() -> None:
    data = {"inner": {"dpth": 2}}
    assert WORDS.keys(["inner"], data) == ["depth"]
    assert WORDS.keys(["inner", "nothing"], data) == []
    assert "count" in WORDS.keys([], data)


def test_leaves_are_all_keys_with_groups_expanded() -> None:
    keys = [key for key, _ in WORDS.leaves()]
    assert keys == [*list(Outer.model_fields), "inner.depth"]


@pytest.mark.parametrize(
    ("name", "guess"), [("num_clases", "num_classes"), ("NUM_CLASSES", "num_classes"), ("zebra", None), ("", None)]
)
def test_the_nearest_name_is_guessed(name: str, guess: str | None) -> None:
    assert nearest(name, ["encoder", "num_classes", "name"]) == guess


def test_where_nothing_is_near_the_known_names_are_listed() -> None:
    assert unknown("key", "zebra", ["lr", "batch"]) == "unknown key; known here: lr, batch"
    assert unknown("key", "zebra", map(str, range(20))).endswith("10, 11, ...")


def test_long_values_are_cut() -> None:
    assert show(list(range(100))) == "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11..."[:37] + "..."
    assert show("ä") == '"ä"'
