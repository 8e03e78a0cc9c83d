"""Plots as PNG bytes: training curves, confusion matrix, bars per class. Matplotlib is imported only when one is drawn.

Figures are made without pyplot: nothing global changes, and no display is needed.
"""

from __future__ import annotations

import csv
import io
import math
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segatlas.drawing.text import font_file, one_line, tell_missing
from segatlas.files import read_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from segatlas.drawing.maps import Color

VALIDATION = "val_"
"""What the columns of validation begin with in `metrics.csv`."""

INK, GRID = "#33383e", "#dfe3e8"
GROUPS = ("#3b7dd8", "#d1603d", "#3f8f5f", "#8a5fb0")  # colours of points in turn
FAR_APART = 8  # times the smallest value
AROUND = (
    ((7, 0), "left", "center"),
    ((-7, 0), "right", "center"),
    ((0, 7), "center", "bottom"),
    ((0, -7), "center", "top"),
    ((6, 6), "left", "bottom"),
    ((6, -6), "left", "top"),
    ((-6, 6), "right", "bottom"),
    ((-6, -6), "right", "top"),
    ((14, 16), "left", "bottom"),
    ((14, -16), "left", "top"),
)  # places of a name around its point: points to the right and up, and which of its sides lies there
LONGEST_NAME = 24  # letters of a class name in a plot
NUMBERS_UP_TO = 25  # classes of a confusion matrix whose cells carry numbers

Row = Mapping[str, float]


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """Read a run's `metrics.csv`: one dict a line, empty cells left out, cells that are no number left out."""
    rows = []
    for line in csv.DictReader(read_text(path).splitlines()):
        row = {name: _number(cell) for name, cell in line.items() if name and cell}
        rows.append({name: value for name, value in row.items() if value is not None})
    return rows


def curves_image(metrics: str | Path, best: str | None = None) -> bytes:
    """Draw a run's `metrics.csv`: losses, scores and learning rates over the optimiser steps.

    A column is a loss where its name holds "loss", a score (0..1) where it is one of validation, `val_NAME`, a learning
    rate where it begins with "lr". Other columns are left out.

    Args:
        metrics: the file.
        best: the NAME of the score that decides which weights are the best; its highest point is marked.
    """
    rows = read_metrics(metrics)
    panels = {
        "loss": _series(rows, lambda name: "loss" in name),
        "score": _series(rows, lambda name: name.startswith(VALIDATION) and "loss" not in name),
        "learning rate": _series(rows, lambda name: name.startswith("lr")),
    }
    panels = {title: series for title, series in panels.items() if series}
    figure = _figure(max(4.6 * len(panels), 4.6), 3.4)
    for number, (title, series) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), number + 1)
        for name, (steps, values) in series.items():
            marker = "o" if len(steps) < 40 else ""
            axes.plot(steps, values, label=name, linewidth=1.6, marker=marker, markersize=3)
        _dress(axes, title, xlabel="optimiser step")
        axes.locator_params(axis="x", integer=True)
        if title == "score":
            axes.set_ylim(0, 1)
            _mark_best(axes, series.get(f"{VALIDATION}{best}"))
        if title == "loss" and _spread(series) > 50:
            axes.set_yscale("log")
        if len(series) <= 8:
            axes.legend(fontsize=8, frameon=False)
    return _png(figure)


def confusion_image(matrix: np.ndarray, classes: Sequence[str]) -> bytes:
    """Draw a confusion matrix, each row divided by its sum: what the pixels of a true class were taken for.

    Args:
        matrix: (K, K) counts, rows truth, columns prediction.
        classes: K names; up to 150 stay readable.
    """
    tell_missing(classes)
    matrix = np.asarray(matrix, np.float64)
    total = matrix.sum(axis=1, keepdims=True)
    fraction = np.divide(matrix, total, out=np.full_like(matrix, np.nan), where=total > 0)
    count = len(classes)
    numbers = count <= NUMBERS_UP_TO
    cell = 0.42 if numbers else max(0.14, 10 / count)
    names = [_short(name) for name in classes]
    label = 0.085 * max(map(_columns, names), default=1) + 0.6
    side = max(2.6, cell * count)
    figure = _figure(side + label + 0.8, side + label)
    axes = figure.add_subplot()
    axes.set_facecolor("#f1f3f5")
    image = axes.imshow(fraction, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    text = 9 if numbers else max(5.0, min(8.0, cell * 50))
    axes.set_xticks(range(count), names, rotation=90, fontsize=text)
    axes.set_yticks(range(count), names, fontsize=text)
    _write_names_as_they_are(axes)
    axes.tick_params(length=0, colors=INK)
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("truth (rows sum to 100 %)", color=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if numbers:
        _write_cells(axes, fraction)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, colors=INK)
    return _png(figure, dpi=110)


def bars_image(classes: Sequence[str], values: Sequence[float | None], palette: Sequence[Color] | None = None) -> bytes:
    """Draw one bar a class in its own colour, best on top; a class that never occurred (None or NaN) comes last, empty.

    Args:
        classes: K names.
        values: K scores 0..1, None or NaN where the class has none.
        palette: K RGB colours; one colour for all without it.
    """
    known = [value if value is not None and math.isfinite(value) else None for value in values]
    order = sorted(range(len(classes)), key=lambda index: (known[index] is None, -(known[index] or 0)))
    tell_missing(classes)
    figure = _figure(7.2, 0.9 + 0.27 * len(classes))
    axes = figure.add_subplot()
    colors = ["#3b7dd8" if palette is None else tuple(part / 255 for part in palette[index]) for index in order]
    places = range(len(order))
    axes.barh(
        places, [known[index] or 0 for index in order], color=colors, edgecolor="#8a9097", linewidth=0.5, height=0.7
    )
    for place, index in zip(places, order, strict=True):
        value = known[index]
        text = "never occurred" if value is None else f"{100 * value:.1f}"
        axes.text((value or 0) + 0.008, place, text, va="center", fontsize=8, color=INK)
    axes.set_yticks(places, [_short(classes[index]) for index in order], fontsize=8)
    _write_names_as_they_are(axes)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(0, 1.08)
    _dress(axes, "IoU per class", xlabel="IoU")
    axes.grid(visible=False, axis="y")
    return _png(figure)


def scatter_image(
    points: Mapping[str, tuple[float, float]], *, title: str, xlabel: str, ylabel: str, groups: Mapping[str, str]
) -> bytes:
    """Draw named points, each with its name beside it; the axis below is logarithmic where values are far apart.

    Args:
        points: name -> (x, y), at least one; x above 0.
        title: what is shown.
        xlabel: what lies along the axis below, with its unit.
        ylabel: what lies along the axis at the left, with its unit.
        groups: name -> what the point belongs to; each has a colour, which a legend names.
    """
    tell_missing(list(points))
    figure = _figure(8.4, 5.6)
    axes = figure.add_subplot()
    places = [x for x, _ in points.values()]
    if max(places) > FAR_APART * min(places):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
    else:
        axes.set_xlim(left=0, right=1.15 * max(places))
    for color, group in zip(cycle(GROUPS), dict.fromkeys(groups.values()), strict=False):
        inside = [points[name] for name in points if groups[name] == group]
        axes.plot(*zip(*inside, strict=True), "o", markersize=6, color=color, label=group)
    axes.margins(x=0.1, y=0.12)
    _dress(axes, title, xlabel=xlabel)
    axes.tick_params(which="minor", labelsize=7, colors=INK, length=0)
    axes.set_ylabel(ylabel, fontsize=8, color=INK)
    axes.legend(fontsize=8, loc="lower left", frameon=False, labelcolor=INK)
    _write_names(figure, axes, points)
    return _png(figure)


def pairs_image(first: Sequence[float], second: Sequence[float], *, title: str, xlabel: str, ylabel: str) -> bytes:
    """Draw two numbers 0..1 of each image as a point; above the diagonal the second is the higher one."""
    tell_missing([title, xlabel, ylabel])
    figure = _figure(4.8, 4.8)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=GRID, linewidth=1.2, zorder=1)
    axes.plot(first, second, "o", markersize=3.5, alpha=0.6, color=GROUPS[0], zorder=2)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    _dress(axes, title, xlabel=xlabel)
    axes.set_ylabel(ylabel, fontsize=8, color=INK)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_parse_math(False)
    return _png(figure)


def _write_names(figure: Figure, axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write the name of each point at the first place around it that is free; of none, at the first."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what is written inside moves nothing
    half = 5 * figure.dpi / 72
    centres = [axes.transData.transform(point) for point in points.values()]
    taken = [(x - half, y - half, x + half, y + half) for x, y in centres]
    for name, point in points.items():
        for step, (offset, across, along) in enumerate((*AROUND, AROUND[0])):
            text = axes.annotate(
                name, point, xytext=offset, textcoords="offset points", fontsize=8, color=INK, ha=across, va=along
            )
            text.set_parse_math(False)
            box = text.get_window_extent().extents
            free = not any(box[0] < r and left < box[2] and box[1] < t and b < box[3] for left, b, r, t in taken)
            if step == len(AROUND) or (free and axes.bbox.x0 <= box[0] and box[2] <= axes.bbox.x1):
                taken.append(box)
                break
            text.remove()


def _short(name: str) -> str:
    """Return a class name on one line of at most LONGEST_NAME letters."""
    name = one_line(name)
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _columns(name: str) -> int:
    """Return the width of a name in Latin letters: East Asian ones are about twice as wide."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in name)


def _write_names_as_they_are(axes: Axes) -> None:
    """Give each tick's name a font that has its letters; "$" begins no formula."""
    from matplotlib.font_manager import FontProperties

    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)
        file = font_file(label.get_text())
        if file is not None:
            label.set_fontproperties(FontProperties(fname=file, size=label.get_fontsize()))


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _series(rows: Sequence[Row], wanted: Callable[[str], bool]) -> dict[str, tuple[list[float], list[float]]]:
    """Return name -> (steps, values) for every column that is wanted and has at least one value."""
    names = list(dict.fromkeys(name for row in rows for name in row if name not in ("step", "epoch")))
    series = {}
    for name in filter(wanted, names):
        points = [(row.get("step", number), row[name]) for number, row in enumerate(rows) if name in row]
        series[name] = ([step for step, _ in points], [value for _, value in points])
    return series


def _spread(series: Mapping[str, tuple[list[float], list[float]]]) -> float:
    values = [value for _, points in series.values() for value in points]
    return max(values) / min(values) if min(values) > 0 else 0.0


def _mark_best(axes: Axes, curve: tuple[list[float], list[float]] | None) -> None:
    """Mark the highest point of a curve with its value."""
    if curve is None:
        return
    steps, values = curve
    best = int(np.argmax(values))
    axes.annotate(
        f"best {100 * values[best]:.1f} %",
        (steps[best], values[best]),
        xytext=(0, 7),
        textcoords="offset points",
        ha="center" if 0 < best < len(values) - 1 else ("right" if best else "left"),
        fontsize=8,
        color=INK,
    )


def _write_cells(axes: Axes, fraction: np.ndarray) -> None:
    for (row, column), value in np.ndenumerate(fraction):
        if np.isfinite(value) and value >= 0.005:
            color = "white" if value > 0.55 else INK
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=8, color=color)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _dress(axes: Axes, title: str, xlabel: str) -> None:
    axes.set_title(title, fontsize=10, color=INK, loc="left", fontweight="bold")
    axes.set_xlabel(xlabel, fontsize=8, color=INK)
    axes.tick_params(labelsize=8, colors=INK, length=0)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _png(figure: Figure, dpi: int = 130) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # `font_file` has told
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()
