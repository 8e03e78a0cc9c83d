"""A tiny PASCAL VOC 2012 in its true layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes.images import blocks, image_of, save_codes, save_image

STEMS = {"train": ("2007_000032", "2007_000039", "2007_000063"), "val": ("2007_000033", "2007_000042")}


def write_voc(root: Path, *, size: tuple[int, int] = (40, 50)) -> Path:
    """Write VOCdevkit/VOC2012 below root: JPEG images, palette masks with a border of 255, three lists."""
    home = root / "VOCdevkit" / "VOC2012"
    palette = [tuple(color) for color in np.random.default_rng(3).integers(0, 256, (256, 3)).tolist()]
    for part, (split, stems) in enumerate(STEMS.items()):
        for number, stem in enumerate(stems):
            codes = blocks(number, range(21), size)
            codes[0, :] = 255
            save_image(home / "JPEGImages" / f"{stem}.jpg", image_of(codes, number + 100 * part))
            save_codes(home / "SegmentationClass" / f"{stem}.png", codes, palette)
        _write_list(home, split, stems)
    _write_list(home, "trainval", STEMS["train"] + STEMS["val"])
    return root


def _write_list(home: Path, split: str, stems: tuple[str, ...]) -> None:
    path = home / "ImageSets" / "Segmentation" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(stems) + "\n")
