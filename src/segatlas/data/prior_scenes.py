"""Generated pairs: images that show too little, and a prior mask that is nearly right.

An image is a scene of discs, squares and triangles (see `segatlas.data.shapes`) under strong noise, a quarter of it
hidden by a board. Its prior is the true mask bent by a thin-plate spline; in a fifth of the images one class is
missing from it. So neither is enough: the image says where the borders are and what the prior lacks, the prior says
what the noise and the board hide.

All of it follows from (seed, split, index). Where a pixel of the prior comes from is rounded to 1/256 of a pixel, so
that the last bit of a logarithm on another processor changes none.

    ROOT/classes.json, sources.json            names and colours of the classes; {"prior": "label"}
    ROOT/pairs.json                            seed, size and counts that it was made with
    ROOT/{split}/images/0000.png               RGB
    ROOT/{split}/prior/0000.png                class index, with palette
    ROOT/{split}/masks/0000.png                class index, with palette
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segatlas.data.formats.classes import JSON_FILE, write_classes
from segatlas.data.formats.masks import write_mask
from segatlas.data.shapes import COLORS, GROUND, draw_scene
from segatlas.errors import DataError, UsageError
from segatlas.files import whole_folder

CLASSES = ("disc", "square", "triangle")
META_FILE, SOURCES_FILE = "pairs.json", "sources.json"
PRIOR = "prior"
NOISE = 0.5
"""Standard deviation of the noise, of values 0..1."""
HIDDEN = 0.25
"""Fraction of the image that the board covers."""
BENDS = (0.05, 0.15)
"""Standard deviation of the control points of the prior, in half sides, drawn between these."""
POINTS = 4
"""Control points along each side of it."""
LACKING = 0.2
"""Fraction of the priors in which a class is missing."""
ROUNDED = 256
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class PriorScene:
    """One generated pair.

    image: (H, W, 3) uint8. prior, classes: (H, W) uint8, 0 = ground; the second is the truth.
    """

    image: np.ndarray
    prior: np.ndarray
    classes: np.ndarray


def make_pairs(
    root: str | Path,
    *,
    train: int = 1000,
    val: int = 200,
    test: int = 200,
    size: tuple[int, int] = (128, 128),
    seed: int = 0,
) -> Path:
    """Write the dataset; `root` appears when all of it is there.

    Args:
        root: folder to make; must be missing or empty.
        train: images in train; likewise val and test.
        val: images in val.
        test: images in test.
        size: (H, W) of every image, at least 32 each way.
        seed: what all of it follows from.

    Returns:
        The root.

    Raises:
        DataError: the folder is not empty, or cannot be written.
        UsageError: a size below 32.
    """
    if min(size) < 32:
        raise UsageError(f"pairs: size {size[0]} x {size[1]}; expected at least 32 x 32")
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError("exists and is not empty; nothing was written", root)
    counts = dict(zip(SPLITS, (train, val, test), strict=True))
    names = (GROUND, *CLASSES)
    palette = [COLORS[name] for name in names]
    with whole_folder(root, durable=False) as temporary:
        for split, count in counts.items():
            for index in range(count):
                scene, file = draw_pair(seed, split, index, size), f"{index:04d}.png"
                (temporary / split / "images").mkdir(parents=True, exist_ok=True)
                Image.fromarray(scene.image).save(temporary / split / "images" / file, compress_level=1)
                write_mask(temporary / split / PRIOR / file, scene.prior, palette)
                write_mask(temporary / split / "masks" / file, scene.classes, palette)
        write_classes(temporary / JSON_FILE, names, palette)
        _write_json(temporary / SOURCES_FILE, {PRIOR: "label"})
        _write_json(temporary / META_FILE, {"seed": seed, "size": list(size), **counts})
    return root


def draw_pair(seed: int, split: str, index: int, size: tuple[int, int] = (128, 128)) -> PriorScene:
    """Draw one pair of (H, W) pixels; the same arguments give the same pixels."""
    scene = draw_scene(seed, split, index, size, CLASSES)
    rng = np.random.default_rng([seed, SPLITS.index(split), index, 1])
    values = _with_board(rng, scene.image / 255)
    noisy = np.clip(values + rng.normal(0, NOISE, values.shape), 0, 1)
    return PriorScene(
        image=np.rint(noisy * 255).astype(np.uint8), prior=_prior(rng, scene.classes), classes=scene.classes
    )


def _with_board(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) 0..1 of which a rectangle is hidden: `HIDDEN` of it, as nearly as whole rows allow."""
    height, width = image.shape[:2]
    area = HIDDEN * height * width
    stretch = rng.uniform(0.6, 1.0 / 0.6)
    rows = int(np.clip(round(np.sqrt(area * stretch)), np.ceil(area / width), height))
    columns = round(area / rows)
    top, left = int(rng.integers(0, height - rows + 1)), int(rng.integers(0, width - columns + 1))
    out = image.copy()
    planks = 1 + 0.12 * ((np.arange(columns) // max(columns // 6, 2)) % 2)
    out[top : top + rows, left : left + columns] = rng.uniform(0.2, 0.7, 3) * planks[None, :, None]
    return out


def _prior(rng: np.random.Generator, classes: np.ndarray) -> np.ndarray:
    """Return a mask (H, W) bent at random, now and then without one of its classes."""
    from segatlas.data.transforms.geometry import Placement
    from segatlas.data.transforms.thin_plate import (
        bent,  # here: listing records and reading recipes does without OpenCV
    )
    from segatlas.data.transforms.warp import warp_label

    moves = rng.normal(0, rng.uniform(*BENDS), (POINTS**2, 2))
    drawn = bent((classes.shape[0], classes.shape[1]), moves)
    grid = np.floor(drawn.points() * ROUNDED + 0.5) / ROUNDED
    prior = warp_label(classes, Placement(matrix=drawn.matrix, size=drawn.size, grid=grid), padding=0)
    there = [index for index in range(1, len(CLASSES) + 1) if (classes == index).any()]
    lacks, which = rng.random() < LACKING, rng.random()
    if lacks and there:
        prior[prior == there[int(which * len(there))]] = 0
    return prior


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
