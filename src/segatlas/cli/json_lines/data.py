"""What the commands of `segatlas data` print with `--json`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from segatlas.cli.json_lines.base import CountedLine, JsonLine


class FindingLine(JsonLine):
    """One fault of a dataset."""

    kind: str = Field(description="its name, see the page of findings")
    severity: Literal["error", "warning"]
    title: str
    fault: str
    repair: str
    count: int
    files: list[str]
    details: list[str] = Field(description="a text for each file, or none")


class CheckedDataLine(JsonLine):
    """What `data check` found."""

    ok: bool = Field(description="nothing worse than warnings")
    root: str
    name: str = Field(description="the layout, as data.name")
    classes: list[str]
    splits: dict[str, dict[str, int]] = Field(description="split -> images, masks, and other files by what they are")
    errors: int
    warnings: int
    findings: list[FindingLine]
    fixed: str | None = Field(None, description="with --fix: the folder of the repaired copy")


class SpreadLine(JsonLine):
    """The smallest, the middle and the largest number."""

    min: float
    median: float
    max: float


class ImageSizeLine(JsonLine):
    """A size, and how many images have it."""

    height: int
    width: int
    images: int


class NormalisationLine(JsonLine):
    """What would stand as model.input."""

    mean: list[float]
    std: list[float]
    max_value: float


class ClassPixelsLine(JsonLine):
    """A class of pixels in a split."""

    name: str = Field(alias="class")
    pixels: int
    fraction: float = Field(description="of the labelled pixels")
    images: int = Field(description="that show it")
    thickness: float | None = Field(description="pixels across, of a disc its radius; null without a border")
    weight: float = Field(description="suggested weight in a loss")


class ClassObjectsLine(JsonLine):
    """A class of objects in a split."""

    name: str = Field(alias="class")
    objects: int
    images: int
    area: SpreadLine | None = Field(description="in pixels")
    small: int
    medium: int
    large: int
    crowds: int


class ObjectStatisticsLine(JsonLine):
    """Objects of a split."""

    images: int
    objects: int
    per_image: SpreadLine
    images_without: int
    classes: list[ClassObjectsLine]
    skipped: list[str]


class SplitStatisticsLine(JsonLine):
    """One split."""

    images: int
    heights: SpreadLine
    widths: SpreadLine
    sizes: list[ImageSizeLine] = Field(description="the commonest")
    channels: int
    depths: dict[str, int] = Field(description="kind of values -> images")
    largest_value: float
    range_warning: str | None
    input: NormalisationLine
    classes: list[ClassPixelsLine]
    ignored_fraction: float
    skipped: list[str]
    objects: ObjectStatisticsLine | None = None


class DataStatisticsLine(JsonLine):
    """What `data stats` counted."""

    root: str | None
    name: str
    splits: dict[str, SplitStatisticsLine]


class PreviewLine(JsonLine):
    """A sheet of images."""

    out: str
    images: list[str] = Field(description="their keys")
    failed: list[str]


class ConvertedDataLine(CountedLine):
    """A dataset in another form. Further keys are counts of what was written."""

    out: str
    to: Literal["folder", "coco", "panoptic", "instances", "cityscapes-ids"]


class StoreUsageLine(JsonLine):
    """The decoded store; with --clear what was removed."""

    folder: str
    entries: int
    bytes: int
    free: int = Field(description="bytes of its disk")
    cleared: bool


class MadeDataLine(JsonLine):
    """A generated dataset."""

    out: str
    train: int
    val: int
    test: int
    seed: int


class MadePriorsLine(CountedLine):
    """Prior masks. Further keys are counts by split."""

    out: str


class WeakenedDataLine(CountedLine):
    """Weak labels. Further keys are counts of what was written."""

    out: str
    to: Literal["scribbles", "points", "boxes", "labels", "partial"]
    seed: int
