"""Show what a trained MultiSource does with its prior, on the test images of generated pairs.

    python tools/multisource_figures.py RUN PAIRS OUT --images 0000,0001,0002

Prints how far the network moves the prior and whether it fits better then; writes `OUT/warps.webp`, a line an image:
the image, the prior as given and as it is laid over it, the lattice of the source as it comes to lie, where the marked
pixel looks in the source, what is found, the truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import segatlas
from multisource_table import iou_of_masks
from segatlas import explain
from segatlas.data.formats.masks import read_mask
from segatlas.drawing.maps import blend
from segatlas.explain.second_source import LaidSource
from segatlas.inference import Predictor

GAP = 4


def pixels_moved(laid: LaidSource) -> float:
    """Return how far the pixels of a source lie from where they are shown, on average."""
    height, width = laid.points.shape[:2]
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return float(np.linalg.norm(laid.points - np.stack([x, y], axis=-1), axis=-1).mean())


def middle_of_largest(mask: np.ndarray) -> tuple[int, int]:
    """Return the pixel (row, column) of the most frequent class but 0 that is nearest to the middle of its pixels."""
    counts = np.bincount(mask.ravel(), minlength=256)
    counts[0] = counts[255] = 0
    places = np.argwhere(mask == counts.argmax())
    row, column = places[np.linalg.norm(places - places.mean(axis=0), axis=1).argmin()]
    return int(row), int(column)


def line_of_tiles(predictor: Predictor, folder: Path, name: str) -> np.ndarray:
    """Return what the sheet shows of one image (H, W, 3) uint8."""
    image, prior = folder / "images" / f"{name}.png", read_mask(folder / "prior" / f"{name}.png")
    truth, palette = read_mask(folder / "masks" / f"{name}.png"), predictor.card.palette
    laid = explain.laid_source(predictor, image, {"prior": prior})
    at = middle_of_largest(truth)
    found = predictor.predict(image, sources={"prior": prior}).semantic
    tiles = [
        laid.image,
        explain.prior_figure(laid, palette),
        explain.lattice_figure(laid),
        explain.co_attention_figure(laid.image, explain.co_attention_map(predictor, image, at, {"prior": prior}), at),
        blend(laid.image, found, palette),
        blend(laid.image, truth, palette),
    ]
    return np.concatenate([np.pad(tile, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for tile in tiles], axis=1)


def main(words: Sequence[str] | None = None) -> int:
    """Print the numbers and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("pairs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", default="0000,0001,0002")
    given = parser.parse_args(words)
    predictor, folder = segatlas.load(given.run), given.pairs / "test"
    moved, masks = [], []
    for file in sorted((folder / "images").iterdir()):
        laid = explain.laid_source(predictor, file, {"prior": read_mask(folder / "prior" / file.name)})
        moved.append(pixels_moved(laid))
        masks.append((read_mask(folder / "masks" / file.name), laid.prior, laid.warped_prior))
    before, after = (iou_of_masks((one[0], one[which]) for one in masks) for which in (1, 2))
    print(f"the prior is moved by {np.mean(moved):.2f} pixels on average")
    print(f"mIoU of the prior at a quarter of the size: {100 * before:.1f} % as given, {100 * after:.1f} % as laid")
    given.out.mkdir(parents=True, exist_ok=True)
    lines = [line_of_tiles(predictor, folder, name) for name in given.images.split(",")]
    Image.fromarray(np.concatenate(lines)).save(given.out / "warps.webp", quality=88)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
