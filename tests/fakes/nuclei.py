"""A tiny folder of images, masks of 0 and 255, and maps with the number of the object in each pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes.images import image_of, save_codes, save_image


def write_nuclei(root: Path, *, train: int = 4, val: int = 2, size: tuple[int, int] = (48, 64)) -> Path:
    """Write ROOT/{train,val}/{images,masks,instances}: four objects an image, two of which touch."""
    for split, count in (("train", train), ("val", val)):
        for index in range(count):
            number = index + 100 * (split == "val")
            objects = np.zeros(size, np.int64)
            for row, column, own in ((4, 6, 1), (4, 16, 2), (26, 10, 3), (22, 40, 4)):
                objects[row + index : row + index + 12, column : column + 10] = own
            save_image(root / split / "images" / f"{number:03d}.png", image_of(np.minimum(objects, 1), number, 3))
            save_codes(root / split / "masks" / f"{number:03d}.png", np.where(objects > 0, 255, 0).astype(np.uint8))
            save_codes(root / split / "instances" / f"{number:03d}.png", objects)
    return root
