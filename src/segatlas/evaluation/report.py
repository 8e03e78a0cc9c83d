"""The report of one evaluation: every number, what it means, on which images and with which settings it was got."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segatlas.files import whole_file
from segatlas.metrics import DEFINITIONS, SemanticScores

if TYPE_CHECKING:
    from rich.table import Table

REPORT_FILE = "eval.json"
REPORT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Which images were scored. `images` counts the split's files, bad ones included."""

    name: str
    split: str
    images: int
    root: str


@dataclass(frozen=True, kw_only=True)
class ScoredModel:
    """Which network predicted. `path` is what the caller named; `parameters` is their number."""

    path: str
    architecture: str
    encoder: str
    parameters: int
    source: str
    licence: str


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """How it predicted and scored.

    window: size of the sliding windows (h, w), None = the whole image in one pass. boundary_width: fraction of the
    image's diagonal. resize: what the card does to an image before the network.
    """

    tta: tuple[str, ...]
    window: tuple[int, int] | None
    resize: str | None
    batch: int
    device: str
    precision: str
    boundary_width: float


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """One image's own miou, NaN where nothing in it is labelled."""

    key: str
    file: str
    miou: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Result of `evaluate`.

    confusion: (K, K) int64 pixels, rows truth, columns prediction. images: one entry a scored image, in the set's
    order. worst: the lowest of them, worst first. skipped: what was wrong with files that could not be scored.
    question: equal for two reports of the same model, data, split and settings.
    """

    scores: SemanticScores
    confusion: np.ndarray = field(repr=False)
    data: DataFacts
    model: ScoredModel
    settings: EvalSettings
    images: tuple[ImageScore, ...] = field(repr=False)
    worst: tuple[ImageScore, ...]
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float
    question: str = ""

    @property
    def miou(self) -> float:
        """Mean IoU, 0..1, over the classes that occur in truth or prediction."""
        return self.scores.miou

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """One row a class: its name under "class", then its numbers by name (fractions 0..1, NaN = undefined)."""
        return self.scores.per_class()

    @property
    def definitions(self) -> dict[str, str]:
        """What each number of this report means."""
        named = {*self.scores.summary(), *self.per_class[0], "image_miou"}
        return {name: text for name, text in DEFINITIONS.items() if name in named}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types only; undefined numbers are None."""
        plain: dict[str, Any] = _plain(
            {
                "version": REPORT_VERSION,
                "miou": self.miou,
                "summary": self.scores.summary(),
                "per_class": self.per_class,
                "classes": self.scores.classes,
                "confusion": self.confusion.tolist(),
                "data": asdict(self.data),
                "model": asdict(self.model),
                "settings": asdict(self.settings),
                "worst": [_image_row(image) for image in self.worst],
                "images": [_image_row(image) for image in self.images],
                "skipped": self.skipped,
                "warnings": self.warnings,
                "seconds": round(self.seconds, 3),
                "question": self.question,
                "definitions": self.definitions,
            }
        )
        return plain

    def to_json(self, path: str | Path) -> Path:
        """Write the report (NaN as null); a folder gets `eval.json`. The file appears only when it is complete.

        Raises:
            DataError: it cannot be written.
        """
        path = Path(path)
        if path.is_dir():
            path = path / REPORT_FILE
        text = json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        with whole_file(path) as temporary:
            temporary.write_bytes((text + "\n").encode("utf-8", "backslashreplace"))  # a file name may be no UTF-8
        return path

    def to_markdown(self) -> str:
        """Return the report as Markdown: facts, table of classes, summary, definitions."""
        from segatlas.evaluation.tables import markdown

        return markdown(self)

    def table(self) -> Table:
        """Return the table of classes for `rich.print`."""
        from segatlas.evaluation.tables import class_table

        return class_table(self)


def _image_row(image: ImageScore) -> dict[str, Any]:
    return {"key": image.key, "image_miou": image.miou, "file": image.file}


def _plain(value: Any) -> Any:
    """Turn tuples into lists and NaN into None, all the way down."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
