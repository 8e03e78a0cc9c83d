"""The overlay: the image tinted with class colours, and a legend of the classes that occur in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from segatlas.drawing.maps import NOT_TINTED, Color, blend
from segatlas.drawing.text import INK, MUTED, PAPER, canvas, font, shortened, tell_missing, text_width

SMALLEST_TEXT, LARGEST_TEXT = 12, 64
LONGEST_NAME = 22  # in units of the text size


@dataclass(frozen=True, kw_only=True)
class LegendEntry:
    """One line of a legend."""

    name: str
    color: Color
    fraction: str


def overlay(
    image: np.ndarray,
    class_map: np.ndarray,
    palette: Sequence[Color],
    classes: Sequence[str],
    alpha: float = 0.5,
    legend: bool = True,
) -> np.ndarray:
    """Return the image tinted with class colours, with a legend strip below it (beside it where it is upright).

    A class whose colour is black is not tinted, and its box in the legend is empty, as that of pixels of no class.
    The image keeps its own pixels' size and lies at the top left; paper is added where the legend needs more room.

    Args:
        image: (H, W, 3) uint8 RGB.
        class_map: (H, W) integers.
        palette: K RGB colours.
        classes: K names.
        alpha: fraction of the class colour, 0..1.
        legend: add the strip with colour boxes, class names and fractions of the image's area.
    """
    tinted = blend(image, class_map, palette, alpha)
    return with_legend(tinted, class_map, overlay_colors(palette), classes) if legend else tinted


def overlay_colors(palette: Sequence[Color]) -> list[Color]:
    """Return the colours that the legend of an overlay shows: none, which is paper, of a class that is not tinted."""
    return [PAPER if tuple(color) == NOT_TINTED else color for color in palette]


def with_legend(
    tinted: np.ndarray,
    class_map: np.ndarray,
    palette: Sequence[Color],
    classes: Sequence[str],
    *,
    outside: str = "ignore",
    size: int | None = None,
) -> np.ndarray:
    """Return an image (H, W, 3) with the strip of `overlay` for the classes of a map; see `legend_entries`.

    The map's size need not be the image's: a sheet of several images has one legend. size: of its text.
    """
    entries = legend_entries(class_map, palette, classes, outside=outside)
    if not entries:
        return tinted
    tell_missing(classes)
    height, width = tinted.shape[:2]
    usual = min(max(width, height) / 50, 2 * min(width, height) / 20)
    size = size or int(np.clip(usual, SMALLEST_TEXT, LARGEST_TEXT))
    if height > 1.2 * width:
        strip = _strip(entries, size, columns=1)
        rows = max(1, height // _line(size) - 1)
        if len(entries) > rows:
            strip = _strip(entries, size, columns=-(-len(entries) // rows))
        return _joined(tinted, strip, to_the_right=True)
    columns = max(1, (width - 2 * _margin(size)) // _column(entries, size))
    return _joined(tinted, _strip(entries, size, columns=min(columns, len(entries))), to_the_right=False)


def legend_entries(
    class_map: np.ndarray, palette: Sequence[Color], classes: Sequence[str], *, outside: str = "ignore"
) -> list[LegendEntry]:
    """Return one entry for each class that occurs, largest first, then one for pixels that are no class.

    outside: what the last one is called.
    """
    values, counts = np.unique(class_map, return_counts=True)
    found = dict(zip(values.tolist(), counts.tolist(), strict=True))
    return _entries(found, class_map.size, palette, classes, outside)


def legend_image(
    pixels: Mapping[int, int], total: int, palette: Sequence[Color], classes: Sequence[str], size: int = 16
) -> np.ndarray:
    """Return a legend alone, (H, W, 3) uint8: a line for each class, largest first.

    Args:
        pixels: of each class that occurs.
        total: pixels in all, for the fractions.
        palette: K RGB colours.
        classes: K names.
        size: of the text, in pixels.
    """
    tell_missing(classes)
    entries = _entries(pixels, total, palette, classes, "ignore")
    return np.asarray(_strip(entries, size, columns=-(-len(entries) // 40)) if entries else canvas(8 * size, size)[0])


def _entries(
    pixels: Mapping[int, int], total: int, palette: Sequence[Color], classes: Sequence[str], outside: str
) -> list[LegendEntry]:
    order = sorted(pixels.items(), key=lambda pair: -pair[1])
    entries = [
        LegendEntry(name=classes[value], color=palette[value], fraction=percent(count / total))
        for value, count in order
        if value < len(classes)
    ]
    ignored = sum(count for value, count in order if value >= len(classes))
    if ignored:
        entries.append(LegendEntry(name=outside, color=PAPER, fraction=percent(ignored / total)))
    return entries


def legend_strip(entries: Sequence[LegendEntry], size: int, width: int, *, fractions: bool = True) -> Image.Image:
    """Return a strip of paper with the entries in as many columns as fit into a width.

    Args:
        entries: at least one.
        size: of the text, in pixels.
        width: in pixels.
        fractions: write those behind the names.
    """
    if not fractions:
        entries = [LegendEntry(name=entry.name, color=entry.color, fraction="") for entry in entries]
    columns = max(1, (width - 2 * _margin(size)) // _column(entries, size))
    return _strip(entries, size, columns=min(columns, len(entries)))


def percent(fraction: float) -> str:
    """Return a fraction 0..1 as text: "12.3 %", or "< 0.1 %"."""
    return "< 0.1 %" if 0 < fraction < 0.001 else f"{100 * fraction:.1f} %"


def _line(size: int) -> int:
    return round(1.6 * size)


def _margin(size: int) -> int:
    return round(0.8 * size)


def _column(entries: Sequence[LegendEntry], size: int) -> int:
    """Width of one legend column: box, name, fraction and the gap to the next column."""
    names = max(min(text_width(e.name, size), LONGEST_NAME * size) for e in entries)
    fractions = max(text_width(e.fraction, size) for e in entries)
    return round(1.6 * size) + names + size + fractions + round(1.8 * size)


def _strip(entries: Sequence[LegendEntry], size: int, columns: int) -> Image.Image:
    """Draw the legend in `columns` columns, filled from the top down."""
    rows = -(-len(entries) // columns)
    column, line, margin, box = _column(entries, size), _line(size), _margin(size), size
    columns = -(-len(entries) // rows)
    paper, pen = canvas(columns * column - round(1.8 * size) + 2 * margin, rows * line + 2 * margin)
    for number, entry in enumerate(entries):
        left = margin + (number // rows) * column
        middle = margin + (number % rows) * line + line / 2
        right = left + column - round(1.8 * size)
        pen.rectangle((left, middle - box / 2, left + box, middle + box / 2), fill=entry.color, outline=MUTED)
        name = shortened(entry.name, size, LONGEST_NAME * size)
        pen.text((left + 1.6 * size, middle), name, fill=INK, font=font(size, name), anchor="lm")
        pen.text((right, middle), entry.fraction, fill=MUTED, font=font(size), anchor="rm")
    return paper


def _joined(image: np.ndarray, strip: Image.Image, to_the_right: bool) -> np.ndarray:
    height, width = image.shape[:2]
    if to_the_right:
        paper, _ = canvas(width + strip.width, max(height, strip.height))
        corner = (width, 0)
    else:
        paper, _ = canvas(max(width, strip.width), height + strip.height)
        corner = (0, height)
    paper.paste(Image.fromarray(image), (0, 0))
    paper.paste(strip, corner)
    return np.asarray(paper)
