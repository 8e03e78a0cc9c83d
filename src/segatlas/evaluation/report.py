"""The report of one evaluation: facts (what was scored how) and sections (numbers, and what else the metrics made).

Pages show each kind of section in their own way and know no number by name: `tables` for the terminal,
`drawing.report` for HTML.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segatlas.evaluation.image_counts import ImageCounts
from segatlas.evaluation.object_cases import ObjectCase
from segatlas.files import whole_file
from segatlas.metrics import Scores
from segatlas.metrics.sections import Matrix, Ranking, Section
from segatlas.renamed import old_attribute

REPORT_FILE = "eval.json"
REPORT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Which images were scored. `images` counts the split's files, bad ones included."""

    name: str
    split: str
    images: int
    root: str

    pictures = old_attribute("pictures", "images")


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

    window: size of the sliding windows (h, w), None = the whole image in one pass. resize: what the card does to an
    image before the network. batch_stats: batch norm by the statistics of the images of a pass, not by its running
    averages. options: of the metrics, by their key in the recipe's `eval:`. sources: further inputs that were left out
    or shuffled, by name: a control.
    """

    tta: tuple[str, ...]
    window: tuple[int, int] | None
    resize: str | None
    batch: int
    device: str
    precision: str
    batch_stats: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """One image's own score, by the task's first metric; NaN where it is undefined."""

    key: str
    file: str
    score: float

    @property
    def miou(self) -> float:
        """The score of a semantic task."""
        return self.score


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Result of `evaluate`.

    images: one entry a scored image, in the set's order. worst: those with the worst scores of their own, worst first.
    objects: of a task with objects, single ones that say most, by kind. skipped: what was wrong with files that could
    not be scored. question: equal for two reports of the same model,
    data, split and settings. counts: what each image adds, where that was kept.
    """

    scores: Scores
    data: DataFacts
    model: ScoredModel
    settings: EvalSettings
    images: tuple[ImageScore, ...] = field(repr=False)
    worst: tuple[ImageScore, ...]
    objects: Mapping[str, tuple[ObjectCase, ...]] = field(default_factory=dict, repr=False)
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float
    question: str = ""
    counts: ImageCounts | None = field(default=None, repr=False)

    pictures = old_attribute("pictures", "images")

    def __repr__(self) -> str:
        return f"Report({self.model.path}: {self.headline}, {len(self.images)} images of {self.data.root})"

    @property
    def miou(self) -> float:
        """Mean IoU, 0..1, over the classes that occur in truth or prediction."""
        return float(self.scores.miou)

    @property
    def score(self) -> float:
        """The number that ranks models, `scores.headline`."""
        return float(self.scores.whole[self.scores.headline.name])

    @property
    def headline(self) -> str:
        """That number in words, and which images it is of."""
        number = self.scores.headline
        return f"{number.title or number.name} {number.text(self.score)} on {self.data.split}"

    @property
    def confusion(self) -> np.ndarray:
        """(K, K) int64 pixels, rows truth, columns prediction."""
        return next(matrix.values for matrix in self.scores.matrices if matrix.name == "confusion")

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """One row a class: its name under "class", then its numbers by name (fractions 0..1, NaN = undefined)."""
        return self.scores.per_class()

    @property
    def definitions(self) -> dict[str, str]:
        """What each number of this report means."""
        return self.scores.definitions

    @property
    def sections(self) -> tuple[Section, ...]:
        """Every part of this report but the facts, in order."""
        number = self.scores.image
        if number is None or not self.worst:
            return self.scores.sections
        entries = [(image.score, image.key) for image in self.worst]
        which = "lowest" if number.higher_is_better else "highest"
        title = f"{which} images, by their own {number.title or number.short}"
        return (*self.scores.sections, Ranking(title=title, number=number, entries=entries))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types only; undefined numbers are None."""
        plain: dict[str, Any] = _plain(
            {
                "version": REPORT_VERSION,
                self.scores.headline.name: self.score,
                "summary": self.scores.summary(),
                "per_class": self.per_class,
                "classes": self.scores.classes,
                **{part.name: part.values.tolist() for part in self.sections if isinstance(part, Matrix)},
                "data": asdict(self.data),
                "model": asdict(self.model),
                "settings": _without_group(asdict(self.settings), "options"),
                "worst": [self._image_row(image) for image in self.worst],
                **({"objects": self._object_rows()} if self.objects else {}),
                "images": [self._image_row(image) for image in self.images],
                "skipped": self.skipped,
                "warnings": self.warnings,
                "seconds": round(self.seconds, 3),
                "question": self.question,
                "definitions": self.definitions,
            }
        )
        return plain

    def _object_rows(self) -> dict[str, list[dict[str, Any]]]:
        return {kind: [case.to_dict() for case in cases] for kind, cases in self.objects.items()}

    def _image_row(self, image: ImageScore) -> dict[str, Any]:
        own = {self.scores.image.name: image.score} if self.scores.image else {}
        return {"key": image.key, **own, "file": image.file}

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


def _without_group(facts: dict[str, Any], group: str) -> dict[str, Any]:
    """Put the keys of a group in its place."""
    inner = facts.pop(group)
    return facts | inner


def _plain(value: Any) -> Any:
    """Turn tuples into lists and NaN into None, all the way down."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
