"""A tiny CamVid in its three layouts, with names that the official split knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes.images import blocks, image_of, save_codes, save_image
from PIL import Image

STEMS = {
    "train": ("0001TP_006690", "0006R0_f00930", "0016E5_00390"),
    "val": ("0016E5_07959", "0016E5_08159"),
    "test": ("0001TP_008550", "Seq05VD_f00000"),
}
FRAMES = {
    "train": ("0001TP_006690", "0001TP_006720", "0001TP_006750", "0001TP_006840", "0006R0_f00930", "0006R0_f00960"),
    "val": ("0016E5_07959", "0016E5_07961", "0016E5_07963"),
    "test": ("0001TP_008550", "0001TP_008580", "Seq05VD_f00000", "Seq05VD_f00030"),
}
COLORS = (
    "64 128 64, 192 0 128, 0 128 192, 0 128 64, 128 0 0, 64 0 128, 64 0 192, 192 128 64, 192 192 128, 64 64 128, "
    "128 0 192, 192 0 64, 128 128 64, 192 0 192, 128 64 64, 64 192 128, 64 64 0, 128 64 128, 128 128 192, 0 0 192, "
    "192 128 128, 128 128 128, 64 128 192, 0 0 64, 0 64 64, 192 64 128, 128 128 0, 192 128 192, 64 0 64, 192 192 0, "
    "0 0 0, 64 192 0"
)
COLORS_32 = np.array([color.split() for color in COLORS.split(", ")], dtype=np.uint8)
"""The 32 colours of the authors' file label_colors.txt, in its order (Animal, Archway, Bicyclist, ...)."""


def write_camvid(root: Path, *, layout: str = "index", size: tuple[int, int] = (36, 48)) -> Path:
    """Write layout "index" ({split}, {split}annot), "colour_folders" ({split}, {split}_labels) or "original"."""
    for part, (split, stems) in enumerate(STEMS.items()):
        for number, stem in enumerate(stems):
            is_index = layout == "index"
            codes = blocks(number, range(12 if is_index else 32), size)
            images = root / "701_StillsRaw_full" if layout == "original" else root / split
            save_image(images / f"{stem}.png", image_of(codes, number + 100 * part))
            if is_index:
                palette = [tuple(color) for color in COLORS_32[:12].tolist()]
                save_codes(root / f"{split}annot" / f"{stem}.png", codes, palette)
                continue
            labels = root / "LabeledApproved_full" if layout == "original" else root / f"{split}_labels"
            labels.mkdir(parents=True, exist_ok=True)
            Image.fromarray(COLORS_32[codes]).save(labels / f"{stem}_L.png")
    return root


def write_frames(root: Path, size: tuple[int, int] = (24, 32), further: int = 0) -> Path:
    """Write frames that follow each other, `further` ones in train, and priors/{split}/STEM.png, predicted masks."""
    more = tuple(f"0001TP_{6870 + 30 * number:06d}" for number in range(further))
    for part, (split, stems) in enumerate((FRAMES | {"train": FRAMES["train"] + more}).items()):
        for number, stem in enumerate(stems, start=10 * part):
            codes = blocks(number, range(12), size)
            save_image(root / split / f"{stem}.png", image_of(codes, number))
            save_codes(root / f"{split}annot" / f"{stem}.png", codes)
            save_codes(root / "priors" / split / f"{stem}.png", np.minimum(codes, 10))
    return root
