"""Many images on one sheet, each with a title of its own, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from segatlas.drawing.text import INK, MUTED, canvas, font, shortened, tell_missing

if TYPE_CHECKING:
    from PIL import ImageDraw

    from segatlas.drawing.maps import Color

CELL_WIDTH, SMALL_CELL_WIDTH = 360, 220
FEW_CELLS = 12
"""Up to so many, cells are large."""

MANY_CELLS = 48
"""More than these stand in more columns."""

TALLEST = 1.6
"""Height of a cell in its width, at most: an upright image is made narrower, and its column with it."""

NARROWEST = 0.45
"""Width of a column in that of a cell, at least: titles need room."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One image of a gallery.

    image: (H, W, 3) uint8 RGB. title: over it, on one line. note: under the title, smaller; "" = none. color: a box of
    this colour before the title.
    """

    image: np.ndarray = field(repr=False)
    title: str
    note: str = ""
    color: Color | None = None


def columns_for(count: int) -> int:
    """Return how many columns a gallery of so many cells has."""
    if count > FEW_CELLS:
        return 6 if count <= MANY_CELLS else 10
    return min(count, 4 if count in (4, 7, 8) or count > 9 else 3)


def gallery(cells: Sequence[Cell], columns: int | None = None, cell_width: int | None = None) -> np.ndarray:
    """Return images row by row on white paper, (H, W, 3) uint8, each scaled to fit its cell with its ratio kept.

    Args:
        cells: at least one.
        columns: cells in a row; None = as many as suit their number, see `columns_for`.
        cell_width: in pixels; None = large cells for few, small ones for many.
    """
    if not cells:
        raise ValueError("a gallery needs at least one cell")
    columns = min(columns or columns_for(len(cells)), len(cells))
    width = cell_width or (CELL_WIDTH if len(cells) <= FEW_CELLS else SMALL_CELL_WIDTH)
    tell_missing([text for cell in cells for text in (cell.title, cell.note)])
    text, gap = max(13, width // 22), max(6, width // 40)
    head = round(1.7 * text) + (round(1.3 * text) if any(cell.note for cell in cells) else 0)
    ratios = [cell.image.shape[0] / cell.image.shape[1] for cell in cells]
    height = max(1, round(max(min(width * ratio, TALLEST * width) for ratio in ratios)))
    width = round(max(NARROWEST * width, max(min(width, height / ratio) for ratio in ratios)))
    rows = -(-len(cells) // columns)
    paper, pen = canvas(gap + columns * (width + gap), gap + rows * (head + height + gap))
    for number, cell in enumerate(cells):
        left = gap + number % columns * (width + gap)
        top = gap + number // columns * (head + height + gap)
        _write(pen, cell, left, top, width, text)
        place(paper, cell.image, left, top + head, width, height)
    return np.asarray(paper)


def place(paper: Image.Image, image: np.ndarray, left: int, top: int, width: int, height: int) -> None:
    """Paste an image into a cell, scaled to fit with its ratio kept, at its top: so those of one row line up."""
    factor = min(width / image.shape[1], height / image.shape[0])
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    scaled = cv2.resize(image, size, interpolation=method)
    paper.paste(Image.fromarray(scaled), (left + (width - size[0]) // 2, top))


def _write(pen: ImageDraw.ImageDraw, cell: Cell, left: int, top: int, width: int, text: int) -> None:
    middle, indent = top + 0.75 * text, 0
    if cell.color is not None:
        pen.rectangle((left, middle - text / 2, left + text, middle + text / 2), fill=cell.color, outline=MUTED)
        indent = round(1.5 * text)
    title = shortened(cell.title, text, width - indent)
    pen.text((left + indent, middle), title, fill=INK, font=font(text, title), anchor="lm")
    if cell.note:
        small = text - 2
        note = shortened(cell.note, small, width)
        pen.text((left, middle + 1.35 * text), note, fill=MUTED, font=font(small, note), anchor="lm")
