"""Load a few samples of a split, evenly spread, and say what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segatlas.data.checks.findings import Finding
from segatlas.data.checks.splits import ValueEnds
from segatlas.data.checks.stats import FEWEST_BETWEEN, SMOOTHED_FRACTION, count_between, fault_of
from segatlas.data.dataset import SegmentationData
from segatlas.data.formats.masks import IGNORE
from segatlas.errors import DataError

AGAIN = "segatlas data check names every such file"


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What the samples that could be loaded show. labels: mask -> classes seen. ends: of the values."""

    labels: dict[Path, frozenset[int]] = field(default_factory=dict)
    ends: list[ValueEnds] = field(default_factory=list)


def spread(total: int, count: int) -> list[int]:
    """Return at most `count` indices, evenly spread over 0..total-1."""
    places: list[int] = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()
    return places


def quick_check(dataset: SegmentationData, count: int = 16) -> list[Finding]:
    """Look at a few samples of a split before time is spent on it. Raises nothing.

    Finds what `load` refuses, labels smoothed by a resize, and that all labels seen are one class.
    """
    return usable_samples(dataset, count)[0]


def usable_samples(dataset: SegmentationData, count: int) -> tuple[list[Finding], Samples]:
    """Load at most `count` samples; return what is wrong, and what the good ones show."""
    findings: list[Finding] = []
    smoothed: list[Path] = []
    samples = Samples()
    for index in spread(len(dataset), count):
        image, mask = dataset.files(index)
        try:
            sample = dataset.load(index)
        except Exception as error:  # whatever a file makes a reader raise is a fault of that file
            findings.append(unusable(error, mask or image))
            continue
        low, high = float(sample.image.min()), float(sample.image.max())
        samples.ends.append(ValueEnds(path=image, depth=sample.image.dtype.name, lowest=low, highest=high))
        if sample.label is None or mask is None:
            continue
        seen_here = frozenset(np.unique(sample.label).tolist()) - {IGNORE}
        samples.labels[mask] = samples.labels.get(mask, frozenset()) | seen_here  # a volume has many samples
        between, steps = count_between(sample.label)
        if between >= FEWEST_BETWEEN and between > SMOOTHED_FRACTION * steps:
            smoothed.append(mask)
    if smoothed:
        fault = "labels between two classes along borders: the masks were smoothed by a resize"
        findings.append(
            Finding(kind="smoothed_mask", severity="error", files=tuple(smoothed), fault=fault, repair=AGAIN)
        )
    seen = frozenset[int]().union(*samples.labels.values())
    if len(samples.labels) > 1 and len(seen) < 2:
        shown = f"only class {next(iter(seen))}" if seen else "no label at all"
        fault = f"{len(samples.labels)} masks looked at show {shown}"
        files = tuple(samples.labels) if not seen else ()
        findings.append(Finding(kind="single_class", severity="warning", files=files, fault=fault, repair=AGAIN))
    return findings, samples


def unusable(error: Exception, path: Path) -> Finding:
    """Return the finding about a file with which a sample cannot be used."""
    if isinstance(error, DataError):
        path = error.path or path
        fault = fault_of(error, path)
    else:
        fault = f"{type(error).__name__}: {error}"
    return Finding(kind="unusable", severity="error", files=(path,), fault=fault, repair=f"{AGAIN} and the repair")
