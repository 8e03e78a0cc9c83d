"""Look at all files of an listing, each once, in several threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from segatlas.data.checks.stats import ImageStats, MaskStats, look_at_image, look_at_mask
from segatlas.data.datasets import dataset_class
from segatlas.data.datasets.listing import Item, Listing

Progress = Callable[[int, int], None]
"""Called with (files read, files in all)."""


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """An listing and what the files of its pairs show."""

    listing: Listing
    images: dict[Path, ImageStats]
    masks: dict[Path, MaskStats]
    max_value: float | None = None
    """The image value that the recipe declares to become 1; None = that of the files' type."""

    sources: dict[Path, ImageStats] = field(default_factory=dict)
    """Of further inputs that are images."""

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

    def shown(self, path: Path) -> str:
        """Return a path below the root as short as messages want it."""
        root = self.listing.root
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def scan_files(
    listing: Listing,
    *,
    max_value: float | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> ScanResult:
    """Read images, masks and further images, each file once. jobs: threads; default: the processors, at most 8."""
    items = [item for part in listing.parts.values() for item in part.items]
    images = list(dict.fromkeys(item.image for item in items))
    masks = list(dict.fromkeys(item.target for item in items if item.target is not None))
    kinds = dataset_class(listing.name).sources
    further = {path for item in items for name, path in item.sources.items() if kinds.get(name) == "image"}
    total = len(images) + len(masks)
    with ThreadPoolExecutor(max_workers=jobs or min(8, os.cpu_count() or 1)) as pool:
        looks_p = pool.map(lambda path: look_at_image(path, listing.channels), images)
        looks_m = pool.map(lambda path: look_at_mask(path, listing.encoding), masks)
        looks_s = pool.map(lambda path: look_at_image(path, listing.channels), sorted(further))
        seen_p: dict[Path, ImageStats] = {}
        seen_m: dict[Path, MaskStats] = {}
        for image in looks_p:
            seen_p[image.path] = image
            if progress:
                progress(len(seen_p), total)
        for mask in looks_m:
            seen_m[mask.path] = mask
            if progress:
                progress(len(seen_p) + len(seen_m), total)
        sources = {source.path: source for source in looks_s}
    return ScanResult(listing=listing, images=seen_p, masks=seen_m, max_value=max_value, sources=sources)
