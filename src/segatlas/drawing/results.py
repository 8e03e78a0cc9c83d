"""What was found in an image, drawn: over the image, alone, as a plot with names and scores, many on one sheet.

Of segments and objects each has a line around it; of a class map the colours alone are drawn. Large results are made
smaller before they are drawn where only a look is wanted (`longest`), their legends count all pixels all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from segatlas.drawing.gallery import Cell, gallery
from segatlas.drawing.legend import LegendEntry, legend_entries, overlay_colors, with_legend
from segatlas.drawing.maps import LINE, Color, blend, boundaries, color_mask, confidence_image, not_tinted
from segatlas.drawing.plots import INK, _figure, _short
from segatlas.drawing.sheets import NO_OBJECT, Pixels, object_maps
from segatlas.drawing.text import font_file, one_line, tell_missing
from segatlas.errors import DataError
from segatlas.structures import ImageResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.text import Text

MOST_CELLS = 48
"""Results on a sheet."""

CELL_PIXELS, PLOT_PIXELS = 480, 1200
"""Longest side of a result on a sheet, and in a plot."""

SHEET_TEXT = 16
"""Of the legend of a sheet, in pixels: as its titles."""

MOST_NAMED = 40
"""Objects of a plot that carry their names: more would cover the image; those of highest score do."""

MOST_LINES = 24
"""Classes in the legend of a plot, the largest ones."""


class _Maps(NamedTuple):
    """What is drawn of a result.

    ids: (H, W) number of each pixel's object, -1 = none; None = no objects are told apart. classes: (H, W) class of
    each pixel; what is none is NO_OBJECT or no class. counted: the same for a legend, which has `names`. outside: what
    the legend calls pixels of no class.
    """

    ids: np.ndarray | None
    classes: np.ndarray
    counted: np.ndarray
    names: tuple[str, ...]
    outside: str


def result_overlay(
    result: ImageResult,
    image: Pixels | None = None,
    *,
    legend: bool = True,
    alpha: float = 0.5,
    longest: int | None = None,
) -> Pixels:
    """Return the image tinted with the colours of what was found in it: (H', W', 3) uint8; without legend (H, W, 3).

    A class whose colour is black is not tinted, and its box in the legend is empty. Without an image, neither given nor
    kept, the colours stand alone, black where nothing was found.

    Args:
        result: of the image.
        image: (H, W, 3) uint8 RGB of the result's size, in place of the one that it keeps.
        legend: add a strip with colour, name and fraction of each class that occurs; behind the name of a class whose
            objects are told apart stands how many there are, and "none" are pixels of no object.
        alpha: fraction of the colour, 0..1.
        longest: make what is drawn smaller, so that its longer side has so many pixels at most.

    Raises:
        TaskError: the result holds nothing.
        DataError: an image of another size.
    """
    maps, ground = _maps_of(result), _ground(result, image)
    drawn = _drawn(result, maps, ground, alpha, longest)
    if not legend:
        return drawn
    return with_legend(drawn, maps.counted, _legend_palette(result, ground), maps.names, outside=maps.outside)


def result_colors(result: ImageResult) -> Pixels:
    """Return (H, W, 3) uint8: each pixel in its class's colour; of objects alone in that of the surest one on it."""
    if result.class_map is not None:
        return color_mask(result.class_map, result.palette)
    maps = _maps_of(result)
    return color_mask(maps.counted, result.palette)


def results_sheet(results: Sequence[ImageResult], columns: int | None = None) -> Pixels:
    """Return results row by row with the names of their images, and one legend where all have the same classes.

    Those beyond MOST_CELLS are left out, which the last title says.

    Args:
        results: at least one.
        columns: cells in a row; None = as many as suit their number.
    """
    shown = results[:MOST_CELLS]
    left = len(results) - len(shown)
    cells, seen, outside = [], [], "ignore"
    for number, result in enumerate(shown, start=1):
        maps = _maps_of(result)
        drawn = _drawn(result, maps, _ground(result, None), 0.5, CELL_PIXELS)
        title = name_of(result) or f"image {number}"
        more = f" (and {left} more)" if left and number == len(shown) else ""
        outside = outside if maps.ids is None else "none"
        cells.append(Cell(image=drawn, title=f"{title}{more}"))
        rows, columns_taken = _places(result.size, CELL_PIXELS)
        seen.append(np.where(maps.classes < 0, len(result.classes), maps.classes)[rows][:, columns_taken].ravel())
    sheet, first = gallery(cells, columns), shown[0]
    if any((one.classes, one.palette) != (first.classes, first.palette) for one in shown):
        return sheet
    palette = _legend_palette(first, first.image)
    return with_legend(sheet, np.concatenate(seen), palette, first.classes, outside=outside, size=SHEET_TEXT)


def result_plot(
    result: ImageResult, image: Pixels | None = None, *, axes: Axes | None = None, alpha: float = 0.5
) -> Figure:
    """Return a figure of matplotlib: image, what was found with the names of objects, confidence where it is there.

    The axes count pixels of the image. Nothing is drawn by pyplot, so no window opens and nothing has to be closed.

    Args:
        result: of the image.
        image: as for `result_overlay`.
        axes: draw what was found, and its legend, here instead; the figure is the one of these axes.
        alpha: fraction of the colour, 0..1.

    Raises:
        TaskError: the result holds nothing.
        DataError: an image of another size.
    """
    maps, ground = _maps_of(result), _ground(result, image)
    drawn = _drawn(result, maps, ground, alpha, PLOT_PIXELS)
    palette = _legend_palette(result, ground)
    entries = legend_entries(maps.counted, palette, maps.names, outside=maps.outside)[:MOST_LINES]
    tell_missing([entry.name for entry in entries])
    if axes is not None:
        figure = axes.get_figure(root=True)
        assert figure is not None, "axes that were removed"
        _show(axes, drawn, result.size, name_of(result))
        _name_objects(axes, result)
        _as_they_are(
            axes.legend(*_handles(entries), fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
        )
        return figure
    panels = [(name_of(result) or "result", drawn)]
    if ground is not None:
        panels.insert(0, ("image", _smaller(ground, PLOT_PIXELS)))
    if result.confidence is not None:
        panels.append(("confidence", _smaller(confidence_image(result.confidence), PLOT_PIXELS)))
    height, width = result.size
    panel_width = 4.6 * min(1.0, max(0.45, width / height))
    columns = min(len(entries), max(1, round(len(panels) * panel_width / 1.9))) or 1
    lines = -(-len(entries) // columns)
    panel_height = min(max(panel_width * height / width, 0.6), 7.0)
    figure = _figure(panel_width * len(panels), panel_height + 0.65 + 0.2 * lines)
    for number, (title, pixels) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number)
        _show(axes, pixels, result.size, title)
        if pixels is drawn:
            _name_objects(axes, result)
    if entries:
        _as_they_are(
            figure.legend(*_handles(entries), loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
        )
    return figure


def name_of(result: ImageResult) -> str:
    """Return the name of the image's file without folders, "" where it has none."""
    return PurePath(result.source).name


def _maps_of(result: ImageResult) -> _Maps:
    names = result.classes
    if result.segments is None and (result.class_map is not None or result.objects is None):
        return _Maps(None, result.semantic, result.semantic, names, "ignore")
    ids, classes = object_maps(result, result.size)
    if result.segments is None:
        things = Counter(one.class_index for one in result.instances)
    else:
        things = Counter(one.class_index for one in result.segments.segments if one.is_thing)
    counted_names = tuple(f"{name} ({things[index]})" if things[index] else name for index, name in enumerate(names))
    return _Maps(ids, classes, np.where(classes == NO_OBJECT, len(names), classes), counted_names, "none")


def _ground(result: ImageResult, image: Pixels | None) -> Pixels | None:
    if image is None:
        return result.image
    if image.shape[:2] != tuple(result.size):
        (height, width), found = result.size, image.shape
        raise DataError(f"an image of {found[1]} x {found[0]} pixels for a result of {width} x {height}")
    return image


def _drawn(result: ImageResult, maps: _Maps, ground: Pixels | None, alpha: float, longest: int | None) -> Pixels:
    """Return the tinted image, or the colours alone."""
    rows, columns = _places(result.size, longest)
    classes = maps.classes[rows][:, columns]
    ground = None if ground is None else _smaller(ground, longest)
    if maps.ids is None:
        return color_mask(classes, result.palette) if ground is None else blend(ground, classes, result.palette, alpha)
    ids = maps.ids[rows][:, columns]
    colors = color_mask(np.where(classes == NO_OBJECT, len(result.palette), classes), result.palette)
    if ground is None:
        drawn = colors
    else:
        drawn, inside = ground.copy(), (ids >= 0) & ~not_tinted(classes, result.palette)
        drawn[inside] = (ground[inside] * (1 - alpha) + colors[inside] * alpha).astype(np.uint8)
    drawn[boundaries(ids)] = LINE
    return drawn


def _legend_palette(result: ImageResult, ground: Pixels | None) -> Sequence[Color]:
    """Return the colours of a legend: those over an image, or those that stand alone."""
    return result.palette if ground is None else overlay_colors(result.palette)


def _smaller(image: Pixels, longest: int | None) -> Pixels:
    """Return an image whose longer side has at most so many pixels."""
    height, width = _size(image.shape[:2], longest)
    if (height, width) == image.shape[:2]:
        return image
    smaller: Pixels = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return smaller


def _places(size: Sequence[int], longest: int | None) -> tuple[slice | np.ndarray, slice | np.ndarray]:
    """Return which rows and columns of a map are taken for the size of `_smaller`: those at the pixels' middles."""
    small = _size(size, longest)
    if small == tuple(size):
        return slice(None), slice(None)
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(size, small, strict=True))
    return rows, columns


def _size(size: Sequence[int], longest: int | None) -> tuple[int, int]:
    height, width = size
    factor = min(1.0, (longest or max(size)) / max(size))
    return max(1, round(height * factor)), max(1, round(width * factor))


# ---- plots
def _show(axes: Axes, pixels: Pixels, size: tuple[int, int], title: str) -> None:
    height, width = size
    axes.imshow(pixels, extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest")
    _as_it_is(axes.set_title(one_line(title), fontsize=9, color=INK, loc="left"))
    axes.tick_params(labelsize=7, colors=INK, length=2)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _name_objects(axes: Axes, result: ImageResult) -> None:
    """Write class and score over the upper left corner of each object's box, or in it where the image ends there."""
    if result.objects is None:
        return
    room = 0.06 * max(result.size)
    for one in result.objects[:MOST_NAMED]:
        top, left, _, _ = one.box
        color = result.palette[one.class_index]
        text = axes.text(left, top, f"{_short(result.classes[one.class_index])} {one.score:.2f}", fontsize=6)
        text.set(color=_readable(color), verticalalignment="bottom" if top > room else "top", clip_on=True)
        text.set_bbox({"facecolor": _as_floats(color), "edgecolor": "none", "pad": 1})
        _as_it_is(text)


def _handles(entries: Sequence[LegendEntry]) -> tuple[list[Any], list[str]]:
    """Return coloured boxes and the texts beside them."""
    from matplotlib.patches import Patch

    boxes = [Patch(facecolor=_as_floats(one.color), edgecolor=INK, linewidth=0.4) for one in entries]
    return boxes, [f"{_short(one.name)}  {one.fraction}" for one in entries]


def _as_they_are(legend: Legend) -> None:
    for text in legend.get_texts():
        _as_it_is(text)


def _as_it_is(text: Text) -> None:
    """Give a text a font that has its letters; "$" begins no formula."""
    from matplotlib.font_manager import FontProperties

    text.set_parse_math(False)
    file = font_file(text.get_text())
    if file is not None:
        text.set_fontproperties(FontProperties(fname=file, size=text.get_fontsize()))


def _as_floats(color: Color) -> tuple[float, float, float]:
    red, green, blue = color
    return red / 255, green / 255, blue / 255


def _readable(color: Color) -> str:
    """Return black or white, whichever is seen on a colour."""
    red, green, blue = color
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"
