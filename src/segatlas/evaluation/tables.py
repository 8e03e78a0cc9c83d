"""Reports for people: tables in the terminal, Markdown, and several models side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from segatlas.printable import printable

if TYPE_CHECKING:
    from segatlas.evaluation.report import Report

HEADINGS = {
    "iou": "IoU",
    "dice": "Dice",
    "precision": "Prec.",
    "recall": "Recall",
    "boundary_iou": "B-IoU",
    "boundary_f": "B-F",
    "recall_small": "small",
    "recall_medium": "medium",
    "recall_large": "large",
}
"""Number -> heading of its column in the table of classes, in order."""

TITLES = {
    "miou": "mean IoU",
    "miou_ground_truth_only": "mean IoU, ground truth only",
    "mean_dice": "mean Dice",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "kappa": "Cohen's kappa",
    "mean_boundary_iou": "mean boundary IoU",
    "mean_boundary_f": "mean boundary F-score",
    "recall_small": "recall, small objects",
    "recall_medium": "recall, medium objects",
    "recall_large": "recall, large objects",
}
"""Number -> its line in the summary, in order."""

OF_ALL_CLASSES = {
    "iou": "miou",
    "dice": "mean_dice",
    "precision": "",
    "recall": "mean_accuracy",
    "boundary_iou": "mean_boundary_iou",
    "boundary_f": "mean_boundary_f",
}
"""Column -> the number of its last line; precision has no mean of its own, recall by size keeps its name."""

UNDEFINED = "–"


def percent(value: float, digits: int = 1) -> str:
    """Return a fraction 0..1 in percent, or a dash where it is undefined."""
    return UNDEFINED if math.isnan(value) else f"{100 * value:.{digits}f}"


def facts(report: Report) -> list[tuple[str, list[str]]]:
    """Return what was scored on what and how: labels with their lines."""
    model, data, settings = report.model, report.data, report.settings
    parts = (model.architecture, model.encoder, f"{model.parameters / 1e6:.2f} M parameters")
    scored = f"{len(report.images)} images" + (f", {len(report.skipped)} skipped" if report.skipped else "")
    window = "windows of {} x {}".format(*settings.window) if settings.window else "whole images"
    resize = f"resized to {settings.resize}" if settings.resize else "own size"
    tta = "test-time augmentation: " + ", ".join(settings.tta) if settings.tta else "no test-time augmentation"
    machine = f"{settings.precision} on {settings.device}, batch {settings.batch}"
    if report.scores.boundary_iou is not None:
        machine += f", boundary width {percent(settings.boundary_width)} % of the diagonal"
    speed = len(report.images) / report.seconds if report.seconds else math.nan
    return [
        ("model", [printable(model.path), " · ".join(filter(None, parts))]),
        ("data", [f"{data.name}, {data.split} split, {scored}", printable(data.root)]),
        ("how", [f"{window}, {resize}, {tta}", machine]),
        ("time", [f"{report.seconds:.1f} s, {speed:.1f} images/s, reading and scoring included"]),
    ]


def class_table(report: Report) -> Table:
    """Return the table of classes, in percent, with a last line for the whole set."""
    rows, summary = report.per_class, report.scores.summary()
    columns = [name for name in HEADINGS if name in rows[0]]
    table = _table()
    table.add_column("class", overflow="ellipsis", no_wrap=True, max_width=20)
    for name in columns:
        table.add_column(HEADINGS[name], justify="right", no_wrap=True)
    table.add_column("pixels", justify="right", no_wrap=True, style="dim")
    total = sum(row["support"] for row in rows)
    for index, row in enumerate(rows):
        cells = [Text(percent(row[name]), style=_shade(row[name]) if name == "iou" else "") for name in columns]
        fraction = f"{percent(row['support'] / total)} %" if total else UNDEFINED
        table.add_row(Text(printable(row["class"])), *cells, fraction, end_section=index == len(rows) - 1)
    whole = [summary.get(OF_ALL_CLASSES.get(name, name), math.nan) for name in columns]
    table.add_row("all", *map(percent, whole), _short_count(total), style="bold")
    return table


def summary_table(report: Report) -> Table:
    """Return the numbers about the whole set, in percent (kappa as it is)."""
    summary = report.scores.summary()
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    for name, title in TITLES.items():
        if name in summary:
            style = "bold" if name == "miou" else ""
            objects = summary.get(name.replace("recall_", "objects_")) if name.startswith("recall_") else None
            note = "" if objects is None else f"{objects} object{'' if objects == 1 else 's'}"
            table.add_row(Text(title, style=style), Text(_whole_number(name, summary[name]), style=style), note)
    return table


def full_report(report: Report) -> Group:
    """Return facts, table of classes, summary, lowest images, warnings and skipped files; no definitions."""
    parts: list[RenderableType] = [_facts_table(report), "", class_table(report), "", summary_table(report)]
    if report.worst:
        worst = [(percent(image.miou), printable(image.key)) for image in report.worst[:3]]
        parts += ["", Text("lowest images, by their own mean IoU"), _pairs(worst)]
    if lines := complaints(report):
        parts += ["", *lines]
    return Group(*parts)


def complaints(report: Report) -> list[Text]:
    """Return the warnings and the files left out, one line each."""
    warnings = [Text(f"warning: {text}", style="yellow") for text in report.warnings]
    return warnings + [Text(f"skipped: {printable(text)}", style="red") for text in report.skipped]


def definitions_table(reports: Sequence[Report]) -> Table:
    """Return what the printed numbers mean, by their names in `eval.json` and their headings."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(style="dim")
    merged = {name: text for report in reports for name, text in report.definitions.items()}
    for name, text in merged.items():
        heading = HEADINGS.get(name, name)
        table.add_row(name if heading.lower() in name else f"{name} ({heading})", text)
    return table


def compare(reports: Sequence[Report]) -> Group:
    """Return several models side by side: IoU by class, then the whole set, and differences to the first model."""
    table = _table()
    table.add_column("", overflow="ellipsis", no_wrap=True, max_width=28)
    for number in range(1, len(reports) + 1):
        table.add_column(Text(f"[{number}]"), justify="right", no_wrap=True)
        if number > 1:
            table.add_column(Text(f"[{number}] - [1]"), justify="right", no_wrap=True)
    classes = reports[0].scores.classes
    for index, label in enumerate(classes):
        values = [report.scores.iou[index] for report in reports]
        table.add_row(Text(f"IoU {printable(label)}"), *_compared(values), end_section=index == len(classes) - 1)
    summaries = [report.scores.summary() for report in reports]
    for name, title in TITLES.items():
        if all(name in summary for summary in summaries):
            cells = _compared([summary[name] for summary in summaries])
            table.add_row(title, *cells, style="bold" if name == "miou" else "")
    legend = [(f"[{number}]", report.model.path) for number, report in enumerate(reports, 1)]
    note = Text("percent; differences in points", style="dim")
    return Group(_pairs(legend), "", table, "", note)


def markdown(report: Report) -> str:
    """Return the report as Markdown: facts, table of classes, summary, definitions."""
    rows, summary = report.per_class, report.scores.summary()
    columns = [name for name in HEADINGS if name in rows[0]]
    lines = [f"# Evaluation: {percent(report.miou, 2)} % mean IoU", ""]
    lines += [f"- {label}: {', '.join(filter(None, texts))}" for label, texts in facts(report)]
    lines += ["", f"| class | {' | '.join(HEADINGS[name] for name in columns)} | pixels |"]
    lines += ["|---|" + "---:|" * (len(columns) + 1)]
    lines += [
        f"| {_escaped(row['class'])} | {' | '.join(percent(row[name]) for name in columns)} | {row['support']} |"
        for row in rows
    ]
    lines += ["", "| whole set | |", "|---|---:|"]
    lines += [
        f"| {title} | {_whole_number(name, summary[name])} |" for name, title in TITLES.items() if name in summary
    ]
    lines += [
        "",
        *(f"- warning: {printable(text)}" for text in report.warnings),
        *(f"- skipped: {printable(text)}" for text in report.skipped),
    ]
    lines += ["", "What the numbers mean:", ""]
    lines += [f"- `{name}`: {text}" for name, text in report.definitions.items()]
    return "\n".join(lines) + "\n"


def _table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")


def _pairs(lines: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in lines:
        table.add_row(Text(label), Text(text))
    return table


def _facts_table(report: Report) -> Table:
    return _pairs([(label, "\n".join(filter(None, texts))) for label, texts in facts(report)])


def _compared(values: Sequence[float]) -> list[Text]:
    """Return the cells of one line: the first value, then each other value with its difference in points."""
    cells = [Text(percent(values[0], 2))]
    for value in values[1:]:
        difference = value - values[0]
        rounded = 0.0 if math.isnan(difference) else round(100 * difference, 2)
        style = "green" if rounded > 0 else "red" if rounded < 0 else "dim"
        cells += [
            Text(percent(value, 2)),
            Text(UNDEFINED if math.isnan(difference) else f"{rounded:+.2f}", style=style),
        ]
    return cells


def _whole_number(name: str, value: float) -> str:
    if name == "kappa":
        return UNDEFINED if math.isnan(value) else f"{value:.4f}"
    return percent(value, 2) + ("" if math.isnan(value) else " %")


def _shade(iou: float) -> str:
    """Return the colour of an IoU in the table: what needs attention is red or yellow."""
    if math.isnan(iou):
        return "dim"
    return "bold red" if iou < 0.3 else "bold yellow" if iou < 0.6 else "bold green"


def _short_count(number: int) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.1f} {letter}"
    return str(number)


def _escaped(text: str) -> str:
    return printable(text).replace("|", "\\|")
