"""Faults of further inputs, such as the image of an earlier date: what the network gets besides the image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from segatlas.data.checks.findings import Finding
from segatlas.data.checks.reading import Reading
from segatlas.data.checks.scan import ScanResult


def check_sources(scan: ScanResult, reading: Reading) -> Iterator[Finding]:
    """Find further images that do not lie on the pixels of their image."""
    wrong: list[tuple[Path, str]] = []
    for _, item in scan.items():
        image = scan.images[item.image]
        for name, path in item.sources.items():
            source = scan.sources.get(path)
            if source is not None and not source.fault and not image.fault and source.size != image.size:
                sizes = [f"{width} x {height}" for height, width in (source.size, image.size)]
                wrong.append((path, f"{name} {sizes[0]}, image {sizes[1]}"))
    if wrong:
        files, details = zip(*wrong, strict=True)
        yield Finding(
            kind="source_mismatch",
            severity="error",
            files=files,
            details=details,
            fault="a further input has another size than its image",
            repair="export them again on the same pixels, or take the image and its mask away",
        )
