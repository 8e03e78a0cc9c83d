"""What the commands of `segatlas explain` print with `--json`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from segatlas.cli.json_lines.base import JsonLine, Number


class DrawnLine(JsonLine):
    """A figure that was written."""

    out: str


class DrawnSheetLine(DrawnLine):
    """A sheet of maps."""

    images: int


class DrawnFilesLine(DrawnLine):
    """Maps in a folder."""

    files: list[str]


class HeatMapLine(JsonLine):
    """The heat map of one class."""

    name: str = Field(alias="class")
    target: float = Field(description="sum of the class's logits over the region")
    strength: float = Field(description="largest value before it was made 1")
    note: str


class HeatMapsLine(DrawnLine):
    """Heat maps of classes."""

    layer: str
    region: str
    maps: list[HeatMapLine]


class ProbabilitiesLine(DrawnLine):
    """Maps of probability."""

    means: dict[str, float] = Field(description="class -> mean over the image")


class EntropyLine(DrawnLine):
    """A map of entropy, 0 sure, 1 all classes equal."""

    mean: float
    highest: float


class AttentionLine(DrawnLine):
    """What a region attends to."""

    name: str = Field(alias="class")
    region: str
    pixels: int
    on_class: float = Field(description="fraction of the attention on the class")


class LayerLine(JsonLine):
    """A layer of a network."""

    name: str
    kind: str


class AxisFieldLine(JsonLine):
    """The receptive field of a layer along one axis, in pixels; null where it is not known."""

    size: int | None
    least: int | None
    cut: bool
    stride: Number
    start: Number
    whole: str | None = Field(description="what takes in the whole image")
    grows: str | None = Field(description="what takes in a fraction of it")


class LayerFieldLine(JsonLine):
    """The receptive field of a layer."""

    name: str
    number: str = Field(description="which of its results, or of its runs; empty where there is one")
    kind: str
    shape: list[int]
    rows: AxisFieldLine | None
    columns: AxisFieldLine | None
    unknown: str | None = Field(description="why it is not known")


class ReceptiveFieldsLine(JsonLine):
    """Receptive fields of layers."""

    size: list[int]
    stopped: str | None
    layers: list[LayerFieldLine]
    out: str | None


class EffectiveFieldLine(JsonLine):
    """A receptive field measured by gradients; boxes are top, left, bottom, right."""

    layer: str
    size: list[int]
    unit: list[int] = Field(description="row and column of the value looked at")
    inputs: int
    theoretical_box: list[int] | None
    box_of_95_percent: list[int]
    side: float
    of_theoretical: Number
    out: str | None


class ErrorsLine(JsonLine):
    """Errors by kind."""

    unit: Literal["pixels", "objects"]
    images: int
    judged: int
    right: int
    edge: Number = Field(None, description="of pixels: fraction of the diagonal")
    score: Number = Field(None, description="of objects: the least that counts")
    errors: dict[str, int]
    per_class: dict[str, dict[str, int]]
    skipped: list[str]
    out: str


class BoundaryLabelsLine(JsonLine):
    """Label files of boundaries."""

    out: str
    width: int
    rest: int = Field(description="the code of other pixels")
    boundary_fraction: float
    files: list[str]


class ChainLayerLine(JsonLine):
    """A layer in a row of layers; pairs are of rows and columns."""

    kernel: list[int]
    stride: list[int]
    padding: list[int]
    dilation: list[int]
    size: list[int] = Field(description="receptive field")
    jump: list[int]
    start: list[float]
