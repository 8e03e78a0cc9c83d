"""What the commands of `segatlas models` and `segatlas config` print with `--json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from segatlas.cli.json_lines.base import JsonLine, Number


class PublishedModelLine(JsonLine):
    """Published weights; scores in percent on the dataset's validation split."""

    name: str
    file: str
    architecture: str
    dataset: str
    config: str
    url: str
    sha256: str = Field(description="its first 8 digits")
    numbers: int = Field(description="that its tensors hold: weights and statistics, auxiliary heads too")
    licence: str
    miou: Number
    miou_ms_flip: Number = Field(description="with several scales and mirrored images")
    pq: Number
    ap: Number = Field(description="of masks")


class ListedModelLine(JsonLine):
    """An architecture or variant."""

    name: str
    architecture: str
    title: str
    tasks: list[str]
    paper: str
    parameters: int | None = Field(
        description="with 19 classes; of a wrapper its own, without its host's; null of a network that is not ours"
    )
    published: list[PublishedModelLine] = Field(description="the best weights of each dataset that load by name")


class ModelFieldLine(JsonLine):
    """A key of an architecture."""

    name: str
    type: str
    required: bool
    default: Any
    meaning: str


class MeasuredWithLine(JsonLine):
    """What parameters and cost were counted for."""

    num_classes: int
    size: list[int]


class ArchitectureInfoLine(JsonLine):
    """An architecture or variant, explained."""

    kind: Literal["architecture"]
    name: str
    architecture: str
    title: str
    paper: str
    tasks: list[str]
    fields: list[ModelFieldLine]
    variants: list[str]
    parameters: int
    macs: int
    host: list[str] | None = Field(description="of a wrapper: types of output that its host may give")
    measured_with: MeasuredWithLine


class PublishedInfoLine(PublishedModelLine):
    """Published weights, explained."""

    kind: Literal["published"]


class TrainedInfoLine(JsonLine):
    """A trained model, explained."""

    kind: Literal["model"]
    path: str
    card: dict[str, Any] = Field(description="its card.json")


class ConvertedModelLine(JsonLine):
    """Weights of another library that became a model folder."""

    kind: Literal["conversion"]
    source: str
    library: str
    out: str
    settings: str | None = Field(description="file that told the settings")
    prefix: str
    left_out: list[str]
    notes: list[str] = Field(description="what was taken by default")
    card: dict[str, Any]


class ExportedModelLine(JsonLine):
    """A model of ours that was written for another library."""

    kind: Literal["export"]
    source: str
    to: str
    file: str
    title: str
    tensors: int
    notes: list[str]


class CheckedRecipeLine(JsonLine):
    """A recipe without a fault."""

    ok: Literal[True]
    recipe: str


class ShippedRecipeLine(JsonLine):
    """A recipe that comes with the package."""

    name: str
    path: str
    title: str
