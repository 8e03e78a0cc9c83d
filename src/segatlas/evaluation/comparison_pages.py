"""A comparison for people: tables of its runs and differences, and a page of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segatlas import drawing
from segatlas.evaluation.comparison import DEFINITIONS, MOST_IMAGES, ComparedModel, Comparison, Difference, Pairing
from segatlas.metrics.number import UNDEFINED
from segatlas.metrics.sections import Figures, Section, TextTable

PAGE_FILE = "compare.html"


def sections(comparison: Comparison) -> tuple[TextTable, ...]:
    """Return the tables of a comparison: first what each run has and how far seeds are apart, then differences."""
    found = [_runs(comparison)]
    for pairing in comparison.pairings:
        found += [_differences(comparison, pairing), *_pairs(comparison, pairing), _images(pairing)]
    return tuple(found)


def short_differences(comparison: Comparison) -> list[str]:
    """Return a line for each model beside the first: the difference of the mIoU, its interval, its odds."""
    lines = []
    for pairing in comparison.pairings:
        one, seeds = pairing.means["miou"], len(pairing.first.runs) > 1 or len(pairing.second.runs) > 1
        within = ", within the spread of the runs" if seeds and pairing.is_within_spread("miou") else ""
        lines.append(
            f"{pairing.second.label} minus {pairing.first.label}: {_points(one.value)} points of mean IoU, "
            f"95 % interval {_interval(one)}, better in {_percent(one.better)} % of draws{within}"
        )
    return lines


def write_page(comparison: Comparison, path: str | Path, command: str = "") -> Path:
    """Write the comparison as one HTML file. command: the line that makes it again, "" = not told."""
    first = comparison.models[0].runs[0]
    parts: list[Section] = [*sections(comparison)]
    for pairing in comparison.pairings:
        parts.append(Figures(title="Images", entries=[("", _figure(pairing))]))
    content = drawing.ReportContent(
        title=" and ".join(model.label for model in comparison.models),
        subtitle=f"{first.data.name}, {comparison.images} images of {first.data.split}",
        headline=[(model.label, _percent(model.mean("miou")) + " % mIoU") for model in comparison.models],
        sections=parts,
        definitions={name: comparison.numbers[name].definition for name in comparison.whole} | DEFINITIONS,
        commands=[command] if command else [],
    )
    return drawing.write_report(content, path)


def _runs(comparison: Comparison) -> TextTable:
    """Return the numbers of each run, and behind those of a model how far they are apart."""
    columns, legend = [""], []
    for place, model in enumerate(comparison.models, 1):
        names = [f"{place}.{index}" for index in range(1, len(model.runs) + 1)]
        columns += [*names, f"spread of {place}"] if len(names) > 1 else [str(place)]
        named = zip(names if len(names) > 1 else [str(place)], model.runs, strict=True)
        legend += [f"{name}: {run.model.path}" for name, run in named]
    rows = []
    for name in comparison.whole:
        row = [comparison.numbers[name].title or name]
        for model in comparison.models:
            row += [_percent(value) for value in model.values[name]]
            row += [_percent(model.spread(name))] if len(model.runs) > 1 else []
        rows.append(row)
    spread = "; spread: the highest minus the lowest" if any(len(model.runs) > 1 for model in comparison.models) else ""
    return TextTable(title="Runs", columns=tuple(columns), rows=rows, note=f"percent{spread}. {', '.join(legend)}")


def _differences(comparison: Comparison, pairing: Pairing) -> TextTable:
    first, second = pairing.first, pairing.second
    seeds = len(first.runs) > 1 or len(second.runs) > 1
    rows = []
    for name, number in comparison.numbers.items():
        one = pairing.means[name]
        mark = "*" if seeds and pairing.is_within_spread(name) else ""
        values = [_percent(first.mean(name)), _percent(second.mean(name)), _points(one.value) + mark]
        rows.append([number.title or name, *values, _interval(one), _percent(one.better)])
    told = (
        [f"percent and points; means of {len(first.runs)} and {len(second.runs)} runs"]
        if seeds
        else ["percent and points"]
    )
    told += ["*: no larger than the spread of the runs of one of them"] if seeds else []
    told += [f"interval and better: paired bootstrap over {comparison.images} images, {comparison.draws} draws, seed "
             f"{comparison.seed}" + ("; it knows nothing of other seeds" if seeds else "")]  # fmt: skip
    return TextTable(
        title=f"{second.label} minus {first.label}",
        columns=("", "first", "second", "difference", "95 % interval", "better"),
        rows=rows,
        note="; ".join(told),
    )


def _pairs(comparison: Comparison, pairing: Pairing) -> list[TextTable]:
    """Return the differences run by run, where both models have as many."""
    if not pairing.pairs:
        return []
    rows = [
        [comparison.numbers[name].title or name, *(f"{_points(pair[name].value)} {_interval(pair[name])}"
                                                   for pair in pairing.pairs)]
        for name in comparison.whole
    ]  # fmt: skip
    columns = ("", *(f"run {index}" for index in range(1, len(pairing.pairs) + 1)))
    return [TextTable(title="Run by run", columns=columns, rows=rows, note="points, with their 95 % intervals")]


def _images(pairing: Pairing) -> TextTable:
    """Return the images that lose and gain most, by their own mIoU."""
    ranked = sorted(pairing.images, key=lambda image: image[1])
    chosen = ranked if len(ranked) <= 2 * MOST_IMAGES else ranked[:MOST_IMAGES] + ranked[-MOST_IMAGES:]
    up, down = (sum(sign * value > 0 for _, value in ranked) for sign in (1, -1))
    return TextTable(
        title="Images that lose and gain most",
        columns=("image", "difference of its own mIoU"),
        rows=[[key, _points(value)] for key, value in chosen],
        note=f"points; of {len(ranked)} images {up} gain and {down} lose",
    )


def _figure(pairing: Pairing) -> bytes:
    first, second = (_image_scores(model) for model in (pairing.first, pairing.second))
    both = ~np.isnan(first + second)
    return drawing.pairs_image(
        first[both],
        second[both],
        title="mIoU of each image",
        xlabel=pairing.first.label,
        ylabel=pairing.second.label,
    )


def _image_scores(model: ComparedModel) -> np.ndarray:
    scores: np.ndarray = np.mean([[image.score for image in run.images] for run in model.runs], axis=0)
    return scores


def _percent(value: float) -> str:
    return UNDEFINED if np.isnan(value) else f"{100 * value:.2f}"


def _points(value: float) -> str:
    return UNDEFINED if np.isnan(value) else f"{100 * value:+.2f}"


def _interval(one: Difference) -> str:
    return UNDEFINED if np.isnan(one.low) else f"[{100 * one.low:+.2f}, {100 * one.high:+.2f}]"
