"""What trainings, evaluations and predictions print with `--json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from segatlas.cli.json_lines.base import CountedLine, FailedLine, JsonLine, Number


class TrainedLine(JsonLine):
    """A finished training. Further keys are the numbers of its best validation by their names, such as miou."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number]
    run: str = Field(description="the run folder")
    model: str = Field(description="folder of the best weights; of a pre-training their file")


class NetworkLine(JsonLine):
    """The network of a dry run."""

    model: str = Field(description="name in the recipe")
    architecture: str
    encoder: str | None
    weights: str = Field(description="where they come from, in words")
    parameters: int
    mean: list[float] = Field(description="per channel, of values / max_value")
    std: list[float] = Field(description="per channel, of values / max_value")
    max_value: float
    statistics: str = Field(description="where mean and std come from, in words")


class DryRunLine(JsonLine):
    """A run that was tried by one step."""

    train_images: int
    val_images: int
    classes: list[str]
    parameters: int
    network: NetworkLine
    batch_shape: list[int] = Field(description="images, channels, height, width")
    source_shapes: dict[str, list[int]] = Field(description="of further inputs, by name")
    label_name: str = Field(description="what the truth is")
    label_shape: list[int]
    output_name: str
    output_shape: list[int]
    aux_shapes: dict[str, list[int]]
    loss: float
    seconds: float = Field(description="of the step")
    memory_mb: float = Field(description="peak of the process, or of the device")
    steps: int = Field(description="length of the run")
    course: list[str] = Field(description="how the run would go, in words")
    notices: list[str]


class EvaluatedLine(JsonLine):
    """A scored model. Further keys are its numbers by name, and `per_class_NAME` or NAME: class -> number."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number | dict[str, Number]]
    model: str = Field(description="as it was named")
    split: str
    images: int = Field(description="how many were scored")
    skipped: list[str] = Field(description="faults of files that were left out")
    warnings: list[str]
    report: str | None = Field(description="file of the whole report, null where it is not kept")


class ComparisonLine(JsonLine):
    """Models side by side: what compare.json holds."""

    version: int
    data: dict[str, Any]
    draws: int
    seed: int
    percentiles: list[float]
    models: list[dict[str, Any]]
    differences: list[dict[str, Any]]
    definitions: dict[str, str]
    file: str | None = Field(description="compare.json, null where it is not kept")


class SeveralEvaluatedLine(JsonLine):
    """Several scored models."""

    reports: list[EvaluatedLine]
    comparison: ComparisonLine | None = Field(None, description="with --compare, of models of pixels")


class PredictedImagesLine(JsonLine):
    """Images that were predicted."""

    model: str
    out: str = Field(description="folder of the results; with --output the file")
    predicted: int
    failed: list[FailedLine]
    not_read: list[str] = Field(description="files of a folder with endings that are not read")
    seconds: float
    bf16_agreement: Number = Field(description="fraction of the first image's pixels with fp32's label; null in fp32")


class PredictedVideoLine(JsonLine):
    """A video that was predicted; times in seconds."""

    source: str
    model: str
    frames: int
    overwritten: int = Field(description="frames of a camera that were left out")
    seconds: float
    read: float
    network: float
    written: float
    smoothing: str
    cuts: int | None = Field(description="where smoothing began anew")
    sound: str
    notes: list[str]
    fault: str = Field(description="why frames are missing; empty where none are")
    interrupted: bool
    frames_per_second: float


class PredictedVideosLine(JsonLine):
    """Videos that were predicted."""

    model: str
    out: str
    videos: list[PredictedVideoLine]
    failed: list[FailedLine]


class PredictedVolumeLine(JsonLine):
    """A volume that was predicted."""

    source: str
    file: str = Field(description="of its labels")
    shape: list[int]
    spacing: list[float]
    axis: int | str
    window: list[float]
    seconds: float
    voxels: dict[str, int] = Field(description="of each class")


class PredictedVolumesLine(JsonLine):
    """Volumes that were predicted."""

    model: str
    out: str
    volumes: list[PredictedVolumeLine]
    failed: list[FailedLine]


class PseudoMasksLine(CountedLine):
    """Masks made of activation maps. Further keys are counts of what was written, by split."""

    out: str
    spread: Literal["local", "walk", "none"]
    labelled: float = Field(description="fraction of train's pixels with a class")
