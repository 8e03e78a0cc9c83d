"""What `bench`, `prune` and `doctor` print with `--json`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from segatlas.cli.json_lines.base import JsonLine, Number


class MeasuredLine(JsonLine):
    """Time and memory of models."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    load: dict[str, Any] = Field(description="whether somebody else used the machine")
    unit: str
    models: list[dict[str, Any]] = Field(description="parameters and operations")
    rows: list[dict[str, Any]] = Field(description="times in milliseconds a call; ratios to the first row")


class MeasuredFramesLine(MeasuredLine):
    """Frames a second of models."""

    ways: dict[str, str] = Field(description="what each way of counting means")


class BeforeAfterLine(JsonLine):
    """A number before and after."""

    before: int
    after: int


class PrunedLine(JsonLine):
    """A pruned model."""

    model: str
    size: list[int]
    macs: BeforeAfterLine
    parameters: BeforeAfterLine
    groups: int
    layers: int
    difference: float = Field(description="from the network that does not read the removed channels")
    left_whole: dict[str, str] = Field(description="layer -> why")


class PruneControlLine(JsonLine):
    """A narrower network of the same cost."""

    macs: int
    parameters: int
    words: list[str] = Field(description="behind the recipe")
    same: list[str] = Field(description="layers as wide as before, for no key says how wide")


class DoctorLine(JsonLine):
    """What this machine offers; sizes in GiB."""

    segatlas: str
    python: str
    system: str
    cores: int
    memory_gib: Number
    disk_free_gib: float
    disk_folder: str
    libraries: dict[str, str | None]
    devices: list[str]
    extras: dict[str, list[str]] = Field(description="extra -> packages that are missing")
