"""A tiny ADE20K in either of its layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes.images import blocks, image_of, save_codes, save_image
from PIL import Image

STEMS = {
    "training": ("ADE_train_00000001", "ADE_train_00000002", "ADE_train_00000003"),
    "validation": ("ADE_val_00000001", "ADE_val_00000002"),
}
OBJECTS = {1: 2978, 2: 312, 3: 2420, 15: 783, 150: 954}
"""Class 1..150 -> the number of one of its objects in the full annotation; 15, door, has two."""

OTHER_OBJECT = 7


def write_ade20k(root: Path, *, full: bool = False, size: tuple[int, int] = (40, 50)) -> Path:
    """Write the challenge tree (codes 0..150), or the full one (colours; images below folders of scenes)."""
    for part, (split, stems) in enumerate(STEMS.items()):
        for number, stem in enumerate(stems):
            if full:
                folder = root / "images" / split / "a" / "abbey"
                objects = blocks(number, (*OBJECTS.values(), 774, OTHER_OBJECT), size)
                save_image(folder / f"{stem}.jpg", image_of(objects, number + 100 * part))
                Image.fromarray(colors_of(objects)).save(folder / f"{stem}_seg.png")
                Image.fromarray(colors_of(objects)).save(folder / f"{stem}_parts_1.png")
            else:
                codes = blocks(number, range(151), size)
                save_image(root / "images" / split / f"{stem}.jpg", image_of(codes, number + 100 * part))
                save_codes(root / "annotations" / split / f"{stem}.png", codes)
    return root


def colors_of(objects: np.ndarray) -> np.ndarray:
    """Return the colours of object numbers; blue is the number of the instance, and red's last digit means nothing."""
    instances = np.arange(objects.size, dtype=np.uint8).reshape(objects.shape)
    return np.stack([objects // 256 * 10 + 3, objects % 256, instances], axis=-1).astype(np.uint8)
