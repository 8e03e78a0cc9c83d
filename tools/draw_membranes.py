"""Draw a dataset of thin structures: grey images of cells whose walls are a few pixels thick, and masks of the walls.

    python tools/draw_membranes.py OUT [--train 24] [--val 6] [--test 12] [--side 512] [--seed 0]

As in sections of tissue under an electron microscope, cells are crowded and of all sizes, walls are dark, of uneven
strength and vanish in places, and round bodies in the cells have dark rims, too. Class 0 is the inside of cells, class
1 their walls. An image depends on seed, split and index alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

from segatlas.data.formats.classes import JSON_FILE, write_classes
from segatlas.data.formats.masks import write_mask
from segatlas.files import whole_folder

CLASSES, COLORS = ("cell", "membrane"), ((220, 220, 220), (40, 40, 120))
SPLITS = ("train", "val", "test")


def draw(seed: int, split: str, index: int, side: int = 512) -> tuple[np.ndarray, np.ndarray]:
    """Return an image (side, side) uint8 and its labels (side, side) uint8."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    border = border_of_cells(rng, side)
    walls = border < rng.uniform(1.6, 2.4) * (1 + 0.35 * smooth(rng, side, 40))
    image = 0.68 + 0.06 * smooth(rng, side, 90) + 0.05 * smooth(rng, side, 4)
    for dark, width in bodies(rng, side):
        image -= dark * np.exp(-((width / 1.6) ** 2))
    seen = np.clip(0.75 + 0.5 * smooth(rng, side, 25), 0.1, 1)
    image -= 0.42 * seen * np.exp(-((border / 2.4) ** 2))
    image = cv2.GaussianBlur(image, (0, 0), 0.8) + rng.normal(0, 0.05, image.shape)
    return (255 * np.clip(image, 0, 1)).astype(np.uint8), walls.astype(np.uint8)


def border_of_cells(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return how far each pixel (side, side) is from the line halfway between the two middles that are next to it."""
    area = 1.3 * side
    middles = rng.uniform(-0.15 * side, 1.15 * side, (int((area / rng.uniform(34, 52)) ** 2), 2))
    rows, columns = np.mgrid[:side, :side].astype(np.float64)
    bent = np.stack([rows + 9 * smooth(rng, side, 30), columns + 9 * smooth(rng, side, 30)], axis=-1)
    near, which = cKDTree(middles).query(bent.reshape(-1, 2), k=2)
    apart = np.linalg.norm(middles[which[:, 0]] - middles[which[:, 1]], axis=1)
    found: np.ndarray = (near[:, 1] ** 2 - near[:, 0] ** 2) / (2 * apart)
    return found.reshape(side, side)


def bodies(rng: np.random.Generator, side: int) -> list[tuple[float, np.ndarray]]:
    """Return of each round body how dark its rim is and the distance of each pixel (side, side) from it."""
    rows, columns = np.mgrid[:side, :side]
    found = []
    for _ in range(int(rng.integers(10, 26) * (side / 512) ** 2) + 1):
        y, x, stretch = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(1, 2.2)
        turn, radius = rng.uniform(0, np.pi), rng.uniform(4, 11)
        u = np.cos(turn) * (columns - x) + np.sin(turn) * (rows - y)
        v = np.cos(turn) * (rows - y) - np.sin(turn) * (columns - x)
        found.append((float(rng.uniform(0.15, 0.4)), abs(np.hypot(u / stretch, v) - radius)))
    return found


def smooth(rng: np.random.Generator, side: int, cell: int) -> np.ndarray:
    """Return noise (side, side) of about -1..1 whose waves are some `cell` pixels long."""
    grid = rng.normal(0, 0.5, (side // cell + 4, side // cell + 4))
    whole = cv2.resize(grid, ((side // cell + 4) * cell,) * 2, interpolation=cv2.INTER_CUBIC)
    found: np.ndarray = whole[:side, :side]
    return found


def main() -> int:
    """Write the dataset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    for split, count in zip(SPLITS, (24, 6, 12), strict=True):
        parser.add_argument(f"--{split}", type=int, default=count)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with whole_folder(given.out, durable=False) as temporary:
        write_classes(temporary / JSON_FILE, CLASSES, COLORS)
        for split in SPLITS:
            (temporary / split / "images").mkdir(parents=True)
            for index in range(getattr(given, split)):
                image, labels = draw(given.seed, split, index, given.side)
                Image.fromarray(image).save(temporary / split / "images" / f"{index:03d}.png")
                write_mask(temporary / split / "masks" / f"{index:03d}.png", labels, COLORS)
    print(f"{given.train} train, {given.val} val, {given.test} test images of {given.side} pixels -> {given.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
