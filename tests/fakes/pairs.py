"""A tiny folder of images at two dates and masks of what has changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from fakes.images import blocks, image_of, save_codes, save_image
from PIL import Image

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


def write_sources(root: Path) -> Path:
    """Write the same with three other sources: prior masks, heat maps of two channels, an image that some lack."""
    write_pairs(root)
    stated = {"prior": "label", "pose": "map", "thermal": {"kind": "image", "optional": True}}
    (root / "sources.json").write_text(json.dumps(stated), encoding="utf-8")
    for split, count in COUNTS.items():
        for index in range(count):
            stem = f"{index + 100 * list(COUNTS).index(split):03d}"
            mask = np.asarray(Image.open(root / split / "masks" / f"{stem}.png"))
            save_codes(root / split / "prior" / f"{stem}.png", np.roll(mask, 2, axis=1))
            heat = [Image.fromarray(np.full(mask.shape, 0.25 * channel, np.float32)) for channel in (1, 2)]
            (root / split / "pose").mkdir(exist_ok=True)
            heat[0].save(root / split / "pose" / f"{stem}.tif", save_all=True, append_images=heat[1:])
            if index < count / 2:
                save_image(root / split / "thermal" / f"{stem}.png", np.full((*mask.shape, 3), index, np.uint8))
    return root


def _folder(root: Path, split: str, kind: str, kind_first: bool) -> Path:
    return root / kind / split if kind_first else root / split / kind
