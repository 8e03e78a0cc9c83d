"""What is wrong inside further inputs: codes that are no class, masks that say nothing, maps of different channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from segatlas.data.checks.findings import Finding
from segatlas.data.checks.reading import Reading, grey_codes
from segatlas.data.checks.scan import ScanResult
from segatlas.data.checks.stats import MaskStats
from segatlas.data.datasets.listing import SourceCoding
from segatlas.data.formats.masks import IGNORE

MOST_SHOWN = 5


def check_source_codes(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find further inputs whose codes are no class, or that are ignored everywhere."""
    for name, paths in _of_kind("label", scan):
        looks = [scan.codes[path] for path in paths if path in scan.codes and not scan.codes[path].fault]
        yield from _codes(name, scan.listing.source_codes.get(name, "any"), looks, reading)


def check_source_channels(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find maps that have other channels than most of their source; headers tell."""
    for name, paths in _of_kind("map", scan):
        yield from _channels(name, paths, scan)


def _of_kind(kind: str, scan: ScanResult) -> Iterator[tuple[str, Iterable[Path]]]:
    """Yield the sources of a kind with their files."""
    for name, own in scan.listing.sources.items():
        if own == kind:
            yield name, dict.fromkeys(item.sources[name] for _, item in scan.items() if name in item.sources)


def _codes(name: str, coding: SourceCoding, looks: Iterable[MaskStats], reading: Reading) -> Iterator[Finding]:
    bad: dict[Path, str] = {}
    empty: list[Path] = []
    for look in looks:
        outside, labels = _read(look, coding, reading)
        if outside:
            bad[look.path] = outside
        elif labels == {IGNORE}:
            empty.append(look.path)
    if bad:
        expected = "0..255" if coding == "any" else f"those of {len(reading.classes)} classes, or 255"
        yield Finding(
            kind="source_codes",
            severity="error",
            files=tuple(bad),
            details=tuple(bad.values()),
            fault=f"source {name} holds what is no code of it; expected {expected}",
            repair="write them again as class indices, or say in data.sources what codes are: classes, masks or any",
        )
    if empty:
        yield Finding(
            kind="source_empty",
            severity="warning",
            files=tuple(empty),
            fault=f"source {name} is ignored (255) everywhere; to a network that can do without it, it is not there",
            repair="is it meant so? Else write these masks again",
        )


def _read(look: MaskStats, coding: SourceCoding, reading: Reading) -> tuple[str, set[int]]:
    """Return in words what is no code, "" where all are, and the labels."""
    if coding == "masks":
        return _shown(reading.bad_codes(look)), set(reading.label_counts(look))
    codes = grey_codes(look, look.counts)
    if codes is None:
        return f"{look.colors} colours", set()
    count = len(reading.classes) if coding == "classes" else IGNORE
    return _shown(code for code in codes if not 0 <= code < count and code != IGNORE), set(codes)


def _channels(name: str, paths: Iterable[Path], scan: ScanResult) -> Iterator[Finding]:
    looks = [look for path in paths if (look := scan.maps.get(path)) is not None and not look.fault]
    counts = Counter(look.channels for look in looks)
    if len(counts) < 2:
        return
    usual = max(counts, key=lambda channels: (counts[channels], channels))
    other = [look for look in looks if look.channels != usual]
    yield Finding(
        kind="source_channels",
        severity="error",
        files=tuple(look.path for look in other),
        details=tuple(f"{look.channels} channels" for look in other),
        fault=f"most maps of source {name} have {usual} channels, and a network takes as many of each image",
        repair=f"write them again with {usual} channels",
    )


def _shown(codes: Iterable[int]) -> str:
    listed = sorted(codes)
    more = ", ..." if len(listed) > MOST_SHOWN else ""
    return ", ".join(map(str, listed[:MOST_SHOWN])) + more
