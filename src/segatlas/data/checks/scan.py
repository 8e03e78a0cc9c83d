"""Look at all files of a listing, each once, in several threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from segatlas.data.checks.stats import (
    ImageStats,
    MaskStats,
    TruthStats,
    look_at_image,
    look_at_mask,
    look_at_truth,
)
from segatlas.data.datasets.listing import FileListing, Item, LabelEncoding

Stats = TypeVar("Stats", ImageStats, MaskStats, TruthStats)
TruthKey = tuple[str, Path]
"""Of the truth of an item: the name of its type, and the item's image; many items may share the file."""

Progress = Callable[[int, int], None]
"""Called with (files read, files in all)."""


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """A listing and what its files show."""

    listing: FileListing
    images: dict[Path, ImageStats]
    masks: dict[Path, MaskStats]
    max_value: float | None = None
    """The image value that the recipe declares to become 1; None = that of the files' type."""

    sources: dict[Path, ImageStats] = field(default_factory=dict)
    """Of further inputs that are images."""

    maps: dict[Path, ImageStats] = field(default_factory=dict)
    """Of further inputs that are maps of numbers."""

    codes: dict[Path, MaskStats] = field(default_factory=dict)
    """Of further inputs that are codes."""

    truths: dict[TruthKey, TruthStats] = field(default_factory=dict)
    """Of truths that are no mask."""

    obstacle: str | None = None
    """Why `repair` can write no copy; "" where it can."""

    def items(self) -> Iterator[tuple[str, Item]]:
        """Yield (split, item) for all items, test images without mask among them."""
        for split, part in self.listing.parts.items():
            for item in part.items:
                yield split, item

    def readable_masks(self) -> list[MaskStats]:
        """Return the masks without a fault, by path."""
        return [facts for _, facts in sorted(self.masks.items()) if not facts.fault]

    def source(self, path: Path) -> ImageStats | MaskStats | None:
        """Return what a further input shows, of whatever kind; None where it was not read."""
        return self.sources.get(path) or self.maps.get(path) or self.codes.get(path)

    def shown(self, path: Path) -> str:
        """Return a path below the root as short as messages want it."""
        root = self.listing.root
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


@dataclass(frozen=True, kw_only=True)
class FilesByRole:
    """Every file of a listing once, by what it is read as. truths: (name of the type, item) each.

    sources, maps, codes: further inputs by kind; of codes with what they are declared to hold.
    """

    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    sources: tuple[Path, ...]
    maps: tuple[Path, ...]
    codes: dict[Path, LabelEncoding]
    truths: dict[TruthKey, tuple[str, Item]]

    @classmethod
    def of(cls, listing: FileListing) -> FilesByRole:
        """Gather the files of a listing's items."""
        items = [item for part in listing.parts.values() for item in part.items]
        further: dict[str, dict[Path, LabelEncoding]] = {"image": {}, "map": {}, "label": {}}
        for item in items:
            for name, path in item.sources.items():
                as_masks = listing.source_codes.get(name) == "masks"
                further[listing.sources[name]][path] = listing.encoding if as_masks else LabelEncoding()
        return cls(
            images=tuple(dict.fromkeys(item.image for item in items)),
            masks=tuple(dict.fromkeys(item.target for item in items if item.target is not None)),
            sources=tuple(further["image"]),
            maps=tuple(further["map"]),
            codes=further["label"],
            truths={(name, item.image): (name, item) for item in items for name in item.truths},
        )

    def __len__(self) -> int:
        sources = len(self.sources) + len(self.maps) + len(self.codes)
        return len(self.images) + len(self.masks) + sources + len(self.truths)


def scan_files(
    listing: FileListing,
    *,
    max_value: float | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> ScanResult:
    """Read every file of a listing once. jobs: threads; default: the processors, at most 8."""
    files = FilesByRole.of(listing)
    done = 0

    def counted(looks: Iterator[Stats]) -> Iterator[Stats]:
        nonlocal done
        for stats in looks:
            yield stats
            done += 1
            if progress:
                progress(done, len(files))

    def gathered(looks: Iterator[Stats]) -> dict[Path, Stats]:
        return {stats.path: stats for stats in counted(looks)}

    with ThreadPoolExecutor(max_workers=jobs or min(8, os.cpu_count() or 1)) as pool:
        images = pool.map(lambda path: look_at_image(path, listing.channels), files.images)
        masks = pool.map(lambda path: look_at_mask(path, listing.encoding), files.masks)
        sources = pool.map(lambda path: look_at_image(path, listing.channels), files.sources)
        maps = pool.map(look_at_image, files.maps)
        codes = pool.map(lambda one: look_at_mask(*one), files.codes.items())
        truths = pool.map(lambda one: look_at_truth(one[1], one[0], listing.truths[one[0]]), files.truths.values())
        return ScanResult(
            listing=listing,
            images=gathered(images),
            masks=gathered(masks),
            sources=gathered(sources),
            maps=gathered(maps),
            codes=gathered(codes),
            truths=dict(zip(files.truths, counted(truths), strict=True)),
            max_value=max_value,
        )
