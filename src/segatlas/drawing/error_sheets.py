"""Sheets of errors of one kind: the part of each image around one, its truth, its prediction, and where it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from segatlas.drawing.legend import LegendEntry, legend_entries, legend_strip
from segatlas.drawing.maps import IGNORE_COLOR, WRONG, Color, color_mask, viewable
from segatlas.drawing.object_crops import object_row, part_around
from segatlas.drawing.sheets import sheet
from segatlas.drawing.text import INK, canvas, font, shortened, tell_missing
from segatlas.labels import IGNORE

OTHER: Color = (240, 180, 41)
"""Errors of other kinds."""

PIXEL_TITLES = ("image", "truth", "prediction", "this kind red, other errors yellow")
OBJECT_TITLES = ("image", "truth (green)", "prediction (blue)")


def pixel_error_row(
    image: np.ndarray,
    label: np.ndarray,
    prediction: np.ndarray,
    shown: np.ndarray,
    of_kind: np.ndarray,
    palette: Sequence[Color],
) -> tuple[np.ndarray, ...]:
    """Return the part of an image around an error, four times, see PIXEL_TITLES.

    Args:
        image: (H, W, C) of any type.
        label: (H, W) uint8, 255 where nothing is judged.
        prediction: (H, W) uint8.
        shown: (H, W) bool, the error that the part is around.
        of_kind: (H, W) bool, all errors of its kind.
        palette: K RGB colours.
    """
    top, left, bottom, right = part_around(shown)
    part = np.s_[top:bottom, left:right]
    plain = viewable(image[part])
    grey = (plain.mean(axis=2, keepdims=True) * 0.6 + 40).astype(np.uint8).repeat(3, axis=2)
    grey[(label != prediction)[part]] = OTHER
    grey[of_kind[part]] = WRONG
    grey[label[part] == IGNORE] = IGNORE_COLOR
    return plain, _colored(label[part], palette), _colored(prediction[part], palette), grey


def _colored(labels: np.ndarray, palette: Sequence[Color]) -> np.ndarray:
    drawn = color_mask(labels, palette)
    drawn[labels == IGNORE] = IGNORE_COLOR
    return drawn


def error_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    captions: Sequence[str],
    *,
    title: str,
    titles: Sequence[str],
    shown: Sequence[np.ndarray] = (),
    palette: Sequence[Color] = (),
    classes: Sequence[str] = (),
    cell_width: int = 260,
) -> np.ndarray:
    """Return a sheet with a heading, and below it the colours of the classes that occur.

    Args:
        rows: of images, at least one.
        captions: one a row.
        title: the heading.
        titles: one a column.
        shown: the label maps whose classes the legend names; none = no legend.
        palette: K RGB colours.
        classes: K names.
        cell_width: of an image, in pixels.
    """
    tell_missing([title, *classes])
    body = Image.fromarray(sheet(rows, titles, captions, cell_width=cell_width))
    size = max(14, cell_width // 18)
    strip = None
    if shown:
        values = np.concatenate([labels.ravel() for labels in shown])[None]
        entries = legend_entries(values, palette, classes)
        if (values == IGNORE).any():  # the last one, which the images draw in black
            entries[-1] = LegendEntry(name="not judged", color=IGNORE_COLOR, fraction="")
        strip = legend_strip(entries, size - 2, body.width, fractions=False)
    heading = round(2.2 * size)
    width = max(body.width, strip.width if strip is not None else 0)
    paper, pen = canvas(width, heading + body.height + (strip.height if strip is not None else 0))
    name = shortened(title, size, width - 2 * size)
    pen.text((size // 2, heading / 2), name, fill=INK, font=font(size, name), anchor="lm")
    paper.paste(body, (0, heading))
    if strip is not None:
        paper.paste(strip, (0, heading + body.height))
    return np.asarray(paper)


__all__ = ["OBJECT_TITLES", "PIXEL_TITLES", "error_sheet", "object_row", "pixel_error_row"]
