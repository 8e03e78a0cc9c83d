"""The catalogue of published weights: what they are called, where they lie, what they reach. Loads no torch.

The data (`catalogue.json`) are made by `tools/make_catalogue.py` from the model indices of MMSegmentation and
MMDetection.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

from segatlas.config.messages import unknown
from segatlas.errors import UsageError

SOURCE = "MMSegmentation 1.2.2 model index"
SOURCE_OF_OBJECTS = "MMDetection 3.3.0 model index"
NON_COMMERCIAL = "NVIDIA Source Code License for SegFormer (non-commercial)"

WRITTEN = {"hr18_small": "hr18s", "mobilenet_v2": "mobilenetv2", "dnl_": "dnlnet_"}
"""Part of a variant's name -> how the catalogue writes it."""
SCORES = {"miou": "semantic", "pq": "panoptic", "ap": "instance"}
"""Name of a published score -> the task that it is of."""
FASTFCN_BACKBONE = "r50"
"""Variants of FastFCN are named by their head alone; all are published on this one."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published weights file.

    name: what `segatlas.load` takes: ARCHITECTURE-BACKBONE-DATASET for the best of its kind, else the file's own name.
    file: the file's name without date, hash and ending; also taken.
    sha256: the first 8 hex digits of its hash, as its name carries them.
    numbers: how many numbers its network's tensors hold: weights and statistics, auxiliary heads too.
    miou, miou_ms_flip: percent on the dataset's validation split, one scale; several scales and flips, where stated.
    pq, ap: percent likewise, of segments and of objects' masks.
    licence: of the weights. Terms of the dataset trained on come besides.
    """

    name: str
    file: str
    architecture: str
    dataset: str
    config: str
    url: str
    sha256: str
    numbers: int
    licence: str
    miou: float | None = None
    miou_ms_flip: float | None = None
    pq: float | None = None
    ap: float | None = None

    @property
    def is_commercial(self) -> bool:
        """Whether the licence of the weights allows commercial use."""
        return "non-commercial" not in self.licence

    @property
    def source(self) -> str:
        """Whose index tells of it."""
        return SOURCE if self.miou is not None else SOURCE_OF_OBJECTS

    @property
    def metrics(self) -> dict[str, float]:
        """What was published of it, in percent: "miou", or "pq" and "ap" where there are segments or objects."""
        stated = {name: getattr(self, name) for name in SCORES}
        return {name: value for name, value in stated.items() if value is not None}

    @property
    def tasks(self) -> tuple[str, ...]:
        """What it was scored for."""
        return tuple(SCORES[name] for name in self.metrics)

    def score(self, task: str | None = None) -> float:
        """Return the percent published for a task, by default the first of `metrics`; 0 where there is none."""
        return next((value for name, value in self.metrics.items() if task in (None, SCORES[name])), 0.0)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What a list shows; None leaves all in.

    task: what it can do. dataset: what weights were trained on. least: percent that were published. most_parameters: in
    millions. commercial: weights whose licence allows commercial use alone.

    Raises:
        UsageError: no weights are of the dataset; with the nearest names.
    """

    task: str | None = None
    dataset: str | None = None
    least: float | None = None
    most_parameters: float | None = None
    commercial: bool = False

    def __post_init__(self) -> None:
        datasets = sorted({entry.dataset for entry in published()})
        if self.dataset not in (None, *datasets):
            raise UsageError(f"--dataset: {unknown('dataset', str(self.dataset), datasets)}")

    @property
    def is_of_weights(self) -> bool:
        """Whether it asks for anything that only published weights have."""
        return self.dataset is not None or self.least is not None or self.commercial

    def takes(self, entry: Published) -> bool:
        """Tell whether published weights are shown, but for their size."""
        return (
            (self.task is None or self.task in entry.tasks)
            and self.dataset in (None, entry.dataset)
            and (self.least is None or entry.score(self.task) >= self.least)
            and (entry.is_commercial or not self.commercial)
        )

    def takes_size(self, parameters: int | None) -> bool:
        """Tell whether a network of so many parameters is shown; one of unknown size is where no bound is given."""
        return self.most_parameters is None or (parameters is not None and parameters <= self.most_parameters * 1e6)


@cache
def parameters() -> dict[str, int]:
    """Return the parameters of each architecture and variant with 19 classes; of a wrapper without its host's.

    `tools/generate_docs.py` counts them.
    """
    counts: dict[str, int] = json.loads(files("segatlas.hub").joinpath("parameters.json").read_text(encoding="utf-8"))
    return counts


@cache
def published() -> tuple[Published, ...]:
    """Return all entries, sorted by architecture and file."""
    rows = json.loads(files("segatlas.hub").joinpath("catalogue.json").read_text(encoding="utf-8"))
    return tuple(Published(**row) for row in rows)


def list_published(pattern: str = "*", wanted: Filter | None = None) -> list[Published]:
    """Return the entries whose name matches a shell pattern, and a filter; letter case does not matter."""
    wanted = wanted or Filter()
    return [
        entry
        for entry in published()
        if fnmatchcase(entry.name.lower(), pattern.lower()) and wanted.takes(entry) and wanted.takes_size(entry.numbers)
    ]


def is_published(name: str) -> bool:
    """Tell whether `name` is an entry's name or file."""
    return any(name in (entry.name, entry.file) for entry in published())


def nearest_published(name: str) -> str:
    """Return up to three names that look like `name`, joined by commas, or ""."""
    return ", ".join(get_close_matches(name, [entry.name for entry in published()], n=3, cutoff=0.75))


def published_for(variant: str) -> list[Published]:
    """Return the weights that a variant (`pspnet_r50`) is the network of, the best of each dataset.

    A variant's name is that of the weights with other dashes, and with the parts of `WRITTEN`: `pspnet-r50-ade20k`.
    """
    stem = variant
    for ours, theirs in WRITTEN.items():
        stem = stem.replace(ours, theirs)
    stem = stem.replace("_", "-") + (f"-{FASTFCN_BACKBONE}" if stem.startswith("fastfcn_") else "")
    return [entry for entry in published() if entry.name == f"{stem}-{entry.dataset}"]


def find_published(name: str) -> Published:
    """Return the entry of a name or file.

    Raises:
        UsageError: there is none, with the nearest names.
    """
    for entry in published():
        if name in (entry.name, entry.file):
            return entry
    names = [entry.name for entry in published()]
    raise UsageError(f"'{name}': {unknown('published model', name, names)} (all: segatlas models list --published)")
