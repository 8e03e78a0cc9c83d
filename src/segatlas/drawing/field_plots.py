"""Receptive fields as images: how they grow from layer to layer, and where gradients really come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segatlas.drawing.plots import GROUPS, INK, _dress, _figure, _png
from segatlas.drawing.text import one_line, tell_missing

LONGEST = 44
"""Letters of a layer's name."""

WHOLE = "#b9c2cc"
Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class FieldBar:
    """One layer. name: what is written. size: rows, columns. text: the size in words. whole: it is the whole image."""

    name: str
    size: tuple[int, int]
    text: str
    whole: bool = False


def field_growth_image(bars: Sequence[FieldBar], *, title: str) -> bytes:
    """Draw the theoretical field of layers as bars, the first on top; the whole image in grey.

    Args:
        bars: at least one, in the order in which the layers run.
        title: whose they are.
    """
    tell_missing([bar.name for bar in bars])
    figure = _figure(8.0, 1.1 + 0.34 * len(bars))
    axes = figure.add_subplot()
    largest = max((max(bar.size) for bar in bars if not bar.whole), default=1)
    end = 1.0 * max(largest, 1)
    for place, bar in enumerate(bars):
        for offset, size, color in ((-0.18, bar.size[0], GROUPS[0]), (0.18, bar.size[1], GROUPS[1])):
            axes.barh(
                place + offset,
                end if bar.whole else size,
                height=0.34,
                color=WHOLE if bar.whole else color,
                hatch="//" if bar.whole else None,
                edgecolor="white",
                linewidth=0,
            )
        text = axes.text(
            (end if bar.whole else max(bar.size)) + 0.012 * end, place, bar.text, va="center", fontsize=8, color=INK
        )
        text.set_parse_math(False)
    axes.set_yticks(range(len(bars)), [_cut(bar.name) for bar in bars], fontsize=8)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, 1.3 * end)
    axes.plot([], [], "s", color=GROUPS[0], label="rows")
    axes.plot([], [], "s", color=GROUPS[1], label="columns")
    if any(bar.whole for bar in bars):
        axes.plot([], [], "s", color=WHOLE, label="the whole image")
    _dress(axes, title, xlabel="pixels of the image that a value can depend on, in each direction")
    axes.grid(visible=False, axis="y")
    figure.legend(fontsize=8, frameon=False, loc="outside lower right", ncols=3, labelcolor=INK)
    return _png(figure, dpi=110)


def field_heat_image(gradient: np.ndarray, *, box: Box | None, square: Box, title: str, square_name: str) -> bytes:
    """Draw the effective field, and over it the theoretical one.

    Args:
        gradient: (H, W) 0..1.
        box: theoretical field: top, left, bottom, right; None = not known.
        square: the box that holds most of the gradient.
        title: whose it is.
        square_name: what that box is called.
    """
    height, width = gradient.shape
    figure = _figure(6.6, 0.9 + 5.2 * min(max(height / width, 0.35), 1.6))
    axes = figure.add_subplot()
    shown = axes.imshow(np.sqrt(gradient), cmap="magma", vmin=0, vmax=1, extent=(0, width, height, 0))
    boxes = [(square, "#35c3a8", "-", square_name)]
    if box is not None:
        is_all = box == (0, 0, height, width)
        name = f"theoretical field: {box[2] - box[0]} x {box[3] - box[1]}{', all of this image' if is_all else ''}"
        boxes.append((box, "#5aa9ff", "--", name))
    from matplotlib.patches import Rectangle

    handles = []
    for (top, left, bottom, right), color, style, name in boxes:
        axes.add_patch(
            Rectangle(
                (left, top), right - left, bottom - top, fill=False, edgecolor=color, linestyle=style, linewidth=1.6
            )
        )
        handles.append(
            Rectangle((0, 0), 1, 1, facecolor="#3b0f6f", edgecolor=color, linestyle=style, linewidth=1.6, label=name)
        )
    axes.set_xlim(-0.015 * width, 1.015 * width)
    axes.set_ylim(1.015 * height, -0.015 * height)
    _dress(axes, title, xlabel="column of the image")
    axes.set_ylabel("row of the image", fontsize=8, color=INK)
    axes.grid(visible=False)
    bar = figure.colorbar(shown, ax=axes, fraction=0.04, pad=0.02, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["0", "0.25", "1"])
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=INK)
    bar.set_label("mean size of the gradient, the largest = 1", fontsize=8, color=INK)
    figure.legend(handles=handles, fontsize=8, frameon=False, loc="outside lower center", ncols=2, labelcolor=INK)
    return _png(figure, dpi=110)


def _cut(name: str) -> str:
    name = one_line(name)
    return name if len(name) <= LONGEST else "…" + name[-(LONGEST - 1) :]
