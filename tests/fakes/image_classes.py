"""A tiny folder of images with classes: discs, stripes along rows and along columns, in the layout of ImageNet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes.images import save_image

CLASSES = ("columns", "discs", "rows")


def write_image_classes(root: Path, *, train: int = 6, val: int = 3, size: tuple[int, int] = (72, 80)) -> Path:
    """Write so many images of each class in ROOT/{train,val}/CLASS."""
    draw = np.random.default_rng(0)
    for split, count in {"train": train, "val": val}.items():
        for name in CLASSES:
            for number in range(count):
                save_image(root / split / name / f"{number:03d}.png", _image(name, size, draw))
    return root


def _image(name: str, size: tuple[int, int], draw: np.random.Generator) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    period, shift = draw.integers(8, 16), draw.integers(0, 16)
    places = {"rows": rows, "columns": columns}
    if name in places:
        inside = (places[name] + shift) % period < period // 2
    else:
        (row, column), radius = draw.integers(20, np.array(size) - 20), draw.integers(10, 24)
        inside = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    image = np.where(inside[..., None], draw.uniform(120, 255, 3), draw.uniform(40, 120, 3))
    return np.clip(image + draw.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
