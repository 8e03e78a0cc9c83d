"""A tiny GTAV in its true layout: palette masks of label ids, lists of stems, one mask of another size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes.images import blocks, image_of, save_codes, save_image
from PIL import Image

STEMS = {"train": ("00001", "00002", "00003"), "val": ("00004", "00005"), "test": ("00006", "00007")}
BROKEN = "00008"
"""Listed in train; its mask is smaller than its image."""

COLORS = (
    "0 0 0, 0 0 0, 0 0 0, 0 0 0, 20 20 20, 111 74 0, 81 0 81, 128 64 128, 244 35 232, 250 170 160, 230 150 140, "
    "70 70 70, 102 102 156, 190 153 153, 180 165 180, 150 100 100, 150 120 90, 153 153 153, 153 153 153, 250 170 30, "
    "220 220 0, 107 142 35, 152 251 152, 70 130 180, 220 20 60, 255 0 0, 0 0 142, 0 0 70, 0 60 100, 0 0 90, 0 0 110, "
    "0 80 100, 0 0 230, 119 11 32, 0 0 142"
)
COLORS_35 = np.array([color.split() for color in COLORS.split(", ")], dtype=np.uint8)
"""The colours of the masks by label id."""


def write_gtav(root: Path, *, colors: bool = False, size: tuple[int, int] = (36, 48), broken: bool = False) -> Path:
    """Write images, palette masks (colors: RGB masks) and lists; broken: also a pair of two sizes, in train.txt."""
    stems = {split: [*listed] for split, listed in STEMS.items()}
    if broken:
        stems["train"].append(BROKEN)
    for split, listed in stems.items():
        for stem in listed:
            codes = blocks(int(stem), range(35), size)
            save_image(root / "images" / f"{stem}.png", image_of(codes, int(stem)))
            if stem == BROKEN:
                codes = codes[:-4, :-8]
            if colors:
                (root / "labels").mkdir(parents=True, exist_ok=True)
                Image.fromarray(COLORS_35[codes]).save(root / "labels" / f"{stem}.png")
            else:
                save_codes(root / "labels" / f"{stem}.png", codes, [tuple(color) for color in COLORS_35.tolist()])
        (root / f"{split}.txt").write_text("\n".join(listed) + "\n")
    return root
