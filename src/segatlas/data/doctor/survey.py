"""Look at all files of an inventory, each once, in several threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from segatlas.data.datasets.paired import Pair
from segatlas.data.doctor.facts import MaskFacts, PictureFacts, look_at_mask, look_at_picture
from segatlas.data.doctor.inventory import Inventory

Progress = Callable[[int, int], None]
"""Called with (files read, files in all)."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """An inventory and what the files of its pairs show."""

    inventory: Inventory
    pictures: dict[Path, PictureFacts]
    masks: dict[Path, MaskFacts]
    max_value: float | None = None
    """The image value that the recipe declares to become 1; None = that of the files' type."""

    obstacle: str | None = None
    """Why `repair` can write no copy; "" where it can."""

    def pairs(self) -> Iterator[tuple[str, Pair]]:
        """Yield (split, pair) for all pairs, test pictures without mask among them."""
        for split, part in self.inventory.parts.items():
            for pair in part.matched:
                yield split, pair

    def readable_masks(self) -> list[MaskFacts]:
        """Return the masks without a fault, by path."""
        return [facts for _, facts in sorted(self.masks.items()) if not facts.fault]

    def shown(self, path: Path) -> str:
        """Return a path below the root as short as messages want it."""
        root = self.inventory.root
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def take_survey(
    inventory: Inventory,
    *,
    max_value: float | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Read the pictures and masks of all pairs, each once. jobs: threads; default: the processors, at most 8."""
    as_colors = inventory.coding.colors is not None
    pairs = [pair for part in inventory.parts.values() for pair in part.matched]
    pictures = list(dict.fromkeys(pair.image for pair in pairs))
    masks = list(dict.fromkeys(pair.mask for pair in pairs if pair.mask is not None))
    total = len(pictures) + len(masks)
    with ThreadPoolExecutor(max_workers=jobs or min(8, os.cpu_count() or 1)) as pool:
        looks_p = pool.map(lambda path: look_at_picture(path, inventory.channels), pictures)
        looks_m = pool.map(lambda path: look_at_mask(path, as_colors=as_colors), masks)
        seen_p: dict[Path, PictureFacts] = {}
        seen_m: dict[Path, MaskFacts] = {}
        for picture in looks_p:
            seen_p[picture.path] = picture
            if progress:
                progress(len(seen_p), total)
        for mask in looks_m:
            seen_m[mask.path] = mask
            if progress:
                progress(len(seen_p) + len(seen_m), total)
    return Survey(inventory=inventory, pictures=seen_p, masks=seen_m, max_value=max_value)
