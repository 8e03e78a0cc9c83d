"""A tiny folder of images at two dates and masks of what has changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from fakes.images import blocks, image_of, save_codes, save_image

COUNTS = {"train": 6, "val": 2}


def write_pairs(
    root: Path, *, counts: Mapping[str, int] = COUNTS, size: tuple[int, int] = (32, 48), kind_first: bool = False
) -> Path:
    """Write {images,before,masks} of each split: the later date has a square of other ground, which the mask shows."""
    (root).mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("unchanged\nchanged\n", encoding="utf-8")
    for split, count in counts.items():
        for index in range(count):
            number = index + 100 * list(counts).index(split)
            ground = blocks(number, (0, 1, 2), size)
            changed = np.zeros(size, np.int64)
            top, left = np.random.default_rng(number).integers(0, (size[0] // 2, size[1] // 2))
            changed[top : top + size[0] // 2, left : left + size[1] // 2] = 1
            later = np.where(changed == 1, 3 + ground, ground)
            arrays = {"images": image_of(later, number), "before": image_of(ground, number + 500)}
            for kind, array in arrays.items():
                save_image(_folder(root, split, kind, kind_first) / f"{number:03d}.png", array)
            save_codes(_folder(root, split, "masks", kind_first) / f"{number:03d}.png", changed)
    return root


def _folder(root: Path, split: str, kind: str, kind_first: bool) -> Path:
    return root / kind / split if kind_first else root / split / kind
