"""Results where people look at them: in a notebook, in a window, as HTML. IPython is asked only where it runs."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from PIL import Image

from segatlas.drawing.files import png_bytes
from segatlas.drawing.legend import percent
from segatlas.drawing.maps import Color
from segatlas.drawing.results import name_of, result_overlay, results_sheet
from segatlas.errors import UsageError
from segatlas.printable import html_text
from segatlas.structures import ImageResult

SHOWN_PIXELS = 900
"""Longest side of a result in a notebook, whose file keeps all that it shows."""

MOST_ROWS = 20
"""Classes or objects in a table, the largest or surest ones."""


def small_png(result: ImageResult) -> bytes:
    """Return the overlay of a result, its longer side at most SHOWN_PIXELS, as PNG bytes."""
    return png_bytes(result_overlay(result, longest=SHOWN_PIXELS))


def result_html(result: ImageResult) -> str:
    """Return the overlay and a table as HTML: pixels and fraction of each class; of objects class, score and area.

    Names are escaped. The image is inside, so that the text needs no other file.
    """
    if result.class_map is None and result.objects is not None:
        heads: tuple[str, ...] = ("object", "score", "pixels", "box (top, left, bottom, right)")
        rows: list[tuple[Any, ...]] = [
            (one.class_index, f"{one.score:.3f}", f"{one.area:,}", ", ".join(f"{side:.0f}" for side in one.box))
            for one in result.objects[:MOST_ROWS]
        ]
        count = len(result.objects)
    else:
        heads = ("class", "pixels", "fraction")
        pixels = sorted(result.class_pixels().items(), key=lambda pair: -pair[1])
        total = result.size[0] * result.size[1]
        rows = [(index, f"{number:,}", percent(number / total)) for index, number in pixels[:MOST_ROWS]]
        count = len(pixels)
    height, width = result.size
    caption = f"{name_of(result) or 'image'}, {width} x {height} pixels"
    return _framed(result_overlay(result, longest=SHOWN_PIXELS), caption) + _table(heads, rows, result, count)


def results_html(results: Sequence[ImageResult]) -> str:
    """Return the sheet of several results as HTML."""
    return _framed(results_sheet(results), f"{len(results)} images")


def facts_html(title: str, facts: Sequence[tuple[str, str]], colors: Sequence[tuple[str, Color]] = ()) -> str:
    """Return facts as a table of HTML, and under it names in boxes of their colours."""
    rows = "".join(f"<tr><th style='text-align:left'>{html_text(name)}</th>{_cell(text)}</tr>" for name, text in facts)
    boxes = " ".join(
        f"<span style='white-space:nowrap'>{_box(color)}{html_text(name)}</span>" for name, color in colors
    )
    return f"<div><b>{html_text(title)}</b><table>{rows}</table><div style='max-width:60em'>{boxes}</div></div>"


def show(thing: Any, draw: Callable[[], np.ndarray], title: str) -> None:
    """Show a thing in a notebook by its own form there, elsewhere in a window that waits to be closed.

    Args:
        thing: to show.
        draw: makes the image (H, W, 3) uint8 for a window.
        title: of the window.

    Raises:
        UsageError: there is neither.
    """
    notebook = _notebook()
    if notebook is not None:
        notebook.display(thing)
        return
    from matplotlib import pyplot

    figure = pyplot.figure()
    if getattr(figure.canvas, "required_interactive_framework", None) is None:
        pyplot.close(figure)
        raise UsageError("there is no screen here to show it on; write it to a file: .save('overlay.png')")
    image = draw()
    height, width = image.shape[:2]
    factor = min(12 / width, 8 / height)
    figure.set_size_inches(max(width * factor, 1), max(height * factor, 1))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(image)
    if figure.canvas.manager is not None:
        figure.canvas.manager.set_window_title(title)
    pyplot.show()


def _notebook() -> Any:
    """Return IPython's module of displaying where this process is the kernel of a notebook, else None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return None if getattr(shell, "kernel", None) is None else import_module("IPython.display")


def _framed(image: np.ndarray, caption: str) -> str:
    """Return an image with its caption; as JPEG, a tenth of a PNG, for notebooks keep it as text."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=90, subsampling=0)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    text = html_text(caption)
    return (
        f"<figure style='margin:0'><img alt='{text}' src='data:image/jpeg;base64,{data}'>"
        f"<figcaption>{text}</figcaption></figure>"
    )


def _table(heads: Sequence[str], rows: Sequence[tuple[Any, ...]], result: ImageResult, count: int) -> str:
    """Return a table whose rows begin with the index of a class."""
    lines = "".join(
        f"<tr><td style='text-align:left'>{_box(result.palette[index])}{html_text(result.classes[index])}</td>"
        f"{''.join(map(_cell, texts))}</tr>"
        for index, *texts in rows
    )
    head = "".join(f"<th>{html_text(name)}</th>" for name in heads)
    more = f"<div>and {count - len(rows)} more</div>" if count > len(rows) else ""
    return f"<table><tr>{head}</tr>{lines}</table>{more}"


def _cell(text: str) -> str:
    return f"<td style='text-align:left'>{html_text(text)}</td>"


def _box(color: Color) -> str:
    red, green, blue = (int(part) for part in color)
    return (
        f"<span style='display:inline-block;width:0.9em;height:0.9em;margin-right:0.4em;border:1px solid #777;"
        f"background:rgb({red},{green},{blue})'></span>"
    )
