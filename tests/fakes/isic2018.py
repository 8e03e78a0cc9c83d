"""A tiny ISIC 2018, task 1, in its true folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes.images import image_of, save_codes, save_image

COUNTS = {"Training": 5, "Validation": 2, "Test": 2}


def write_isic2018(root: Path, *, size: tuple[int, int] = (30, 40), counts: dict[str, int] | None = None) -> Path:
    """Write images and masks of 0 and 255, with the texts that the archives hold."""
    for place, (word, count) in enumerate((counts or COUNTS).items()):
        images, masks = root / f"ISIC2018_Task1-2_{word}_Input", root / f"ISIC2018_Task1_{word}_GroundTruth"
        for number in range(count):
            codes = np.zeros(size, np.int64)
            codes[5 : 15 + number, 8 : 20 + 2 * number] = 255
            stem = f"ISIC_{place * 1000 + number:07d}"
            save_image(images / f"{stem}.jpg", image_of(codes, place * 1000 + number))
            save_codes(masks / f"{stem}_segmentation.png", codes)
        (images / "ATTRIBUTION.txt").write_text("the archive\n")
    return root
