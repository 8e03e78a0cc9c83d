"""The image on top of the README: generated shapes above, what a network finds in them below.

    python tools/readme_image.py MODEL [--out docs/images/shapes.png] [--first 0] [--columns 6]

MODEL is whatever `segatlas.load` takes and was trained on shapes. The images are those of the split "test", which no
training sees, in their order: none is chosen. The file has 256 colours.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from segatlas.data.shapes import draw_scene
from segatlas.drawing.legend import with_legend
from segatlas.inference import load

ROOT = Path(__file__).resolve().parent.parent
SIZE = (128, 160)
"""(H, W) of an image: that of `segatlas data make-shapes`."""

GAP, TEXT = 6, 14
"""Pixels of white between images, and the height of the legend's letters."""


def row(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return images beside each other on white, (H', W', 3) uint8."""
    padded = [np.pad(image, ((GAP, 0), (GAP, 0), (0, 0)), constant_values=255) for image in images]
    return np.concatenate(padded, axis=1)


def draw(model: str, *, first: int = 0, columns: int = 6, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return the sheet, (H, W, 3) uint8: a row of images, a row of what was found, a legend of the classes."""
    predictor = load(model, device="cpu")
    images = [draw_scene(0, "test", first + number, size=size).image for number in range(columns)]
    results = [predictor.predict(image) for image in images]
    sheet = np.concatenate([row(images), row([result.overlay(legend=False) for result in results])])
    sheet = np.pad(sheet, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)
    found = np.stack([result.semantic for result in results])
    return with_legend(sheet, found, predictor.card.palette, predictor.card.classes, size=TEXT)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "shapes.png")
    parser.add_argument("--first", type=int, default=0, help="number of the first image of the split")
    parser.add_argument("--columns", type=int, default=6)
    given = parser.parse_args(words)
    sheet = draw(given.model, first=given.first, columns=given.columns)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).quantize(256, dither=Image.Dither.NONE).save(given.out, optimize=True)
    print(f"{given.out}: {sheet.shape[1]}x{sheet.shape[0]}, {given.out.stat().st_size // 1024} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
