from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from segatlas.config.architectures import in_section, read_fields
from segatlas.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Host:
    depth: int = 3


@dataclass(frozen=True, kw_only=True)
class NetConfig:
    num_classes: int
    encoder: str | None = None
    channels: tuple[int, ...] = (256, 128)
    dropout: float = 0.0
    host: Host = field(default_factory=Host)

    def __post_init__(self) -> None:
        if self.dropout == 0.125:
            raise ValueError("dropout does not fit")
        if self.dropout == 0.25:
            raise UsageError("dropout does not fit either")


def check(**fields: object) -> list[tuple[str, str, str]]:
    known = [*NetConfig.__dataclass_fields__, "input"]
    _, faults = read_fields(NetConfig, {"num_classes": 2, **fields}, strict=True)
    problems = [in_section(fault, "model", known) for fault in faults]
    return [(p.key, p.got, p.message) for p in problems]


def test_sound_fields_have_no_problem_and_lists_are_tuples() -> None:
    assert check(channels=[1, 2], encoder="resnet18", dropout=1, host={"depth": 2}) == []
    made, problems = read_fields(NetConfig, {"num_classes": 2, "channels": [1, 2], "host": {"depth": 2}})
    assert (type(made), problems) == (NetConfig, [])
    assert (made.channels, made.host.depth) == ((1, 2), 2)


def test_all_faults_are_found_with_key_value_and_expectation() -> None:
    assert check(chanels=[1], channels=[1, 2.5], dropout="x") == [
        ("model.channels.1", "2.5", "expected a whole number"),
        ("model.dropout", '"x"', "expected a number"),
        ("model.chanels", "[1]", "unknown key - did you mean 'channels'?"),
    ]


def test_the_nearest_name_is_also_looked_for_among_further_keys() -> None:
    assert check(inputt=3)[0][2] == "unknown key - did you mean 'input'?"


def test_an_unknown_key_of_a_nested_group_is_found() -> None:
    assert check(host={"dpth": 3}) == [("model.host.dpth", "3", "unknown key - did you mean 'depth'?")]


def test_a_missing_field_is_named() -> None:
    assert [p.key for p in read_fields(NetConfig, {}, strict=True)[1]] == ["num_classes"]


@pytest.mark.parametrize("dropout", [0.125, 0.25])
def test_what_the_dataclass_itself_refuses_is_a_problem_of_the_section(dropout: float) -> None:
    ((key, _, message),) = check(dropout=dropout)
    assert key == "model"
    assert message.startswith("dropout does not fit")
