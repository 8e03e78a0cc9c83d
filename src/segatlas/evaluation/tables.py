"""Reports for people: tables in the terminal, and several models side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from segatlas.evaluation.report import Report
from segatlas.metrics.number import UNDEFINED, Number
from segatlas.metrics.sections import ClassTable, Ranking, Summary, TextTable
from segatlas.printable import printable

MOST_COLUMNS = 9
"""Scores of a class side by side."""


def facts(report: Report) -> list[tuple[str, list[str]]]:
    """Return what was scored on what and how: labels with their lines."""
    model, data, settings = report.model, report.data, report.settings
    parts = (model.architecture, model.encoder, f"{model.parameters / 1e6:.2f} M parameters")
    scored = f"{len(report.images)} images" + (f", {len(report.skipped)} skipped" if report.skipped else "")
    window = "windows of {} x {}".format(*settings.window) if settings.window else "whole images"
    resize = f"resized to {settings.resize}" if settings.resize else "own size"
    tta = "test-time augmentation: " + ", ".join(settings.tta) if settings.tta else "no test-time augmentation"
    machine = f"{settings.precision} on {settings.device}, batch {settings.batch}"
    norms = ["batch norm by the statistics of the images of a pass"] if settings.batch_stats else []
    machine = ", ".join([machine, *norms, *report.scores.settings])
    speed = len(report.images) / report.seconds if report.seconds else math.nan
    controls = [f"source {name}: {text}, a control" for name, text in settings.sources.items()]
    return [
        ("model", [printable(model.path), " · ".join(filter(None, parts))]),
        ("data", [f"{data.name}, {data.split} split, {scored}", printable(data.root)]),
        ("how", [f"{window}, {resize}, {tta}", machine, *controls]),
        ("time", [f"{report.seconds:.1f} s, {speed:.1f} images/s, reading and scoring included"]),
    ]


def pieces(section: ClassTable) -> list[ClassTable]:
    """Return a table of classes as tables that fit side by side into 80 columns; counts stand in the last."""
    scores = section.scores
    count = -(-len(scores) // MOST_COLUMNS)
    if count <= 1:
        return [section]
    size = -(-len(scores) // count)
    found = [replace(section, columns=scores[start : start + size]) for start in range(0, len(scores), size)]
    return [*found[:-1], replace(found[-1], columns=(*found[-1].columns, *section.counts))]


def class_table(section: ClassTable) -> Table:
    """Return the table of classes, in percent, with a last line for the whole set."""
    table = _table()
    table.add_column("class", overflow="ellipsis", no_wrap=True, max_width=20)
    for number in section.scores:
        table.add_column(number.heading, justify="right", no_wrap=True)
    for number in section.counts:
        table.add_column(number.heading, justify="right", no_wrap=True, style="dim")
    for index, row in enumerate(section.rows):
        cells = [
            Text(_cell(number, row[number.name]), style="" if column else _shade(number, row[number.name]))
            for column, number in enumerate(section.scores)
        ]
        counts = [_count(number, row[number.name], section.last_line[number.name]) for number in section.counts]
        last = index == len(section.rows) - 1
        table.add_row(Text(printable(row["class"])), *cells, *counts, end_section=last)
    means = [_cell(number, section.last_line.get(number.name, math.nan)) for number in section.scores]
    totals = [_short_count(section.last_line[number.name]) for number in section.counts]
    table.add_row("all", *means, *totals, style="bold")
    return table


def summary_table(section: Summary) -> Table:
    """Return the numbers about the whole set."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    for line in section.lines:
        style = "bold" if line.is_headline else ""
        value = Text(line.number.text(line.value), style=style)
        table.add_row(Text(line.number.title, style=style), value, line.note)
    return table


def ranking_lines(section: Ranking) -> Group:
    """Return the first of the worst images."""
    lines = [(section.number.text(value, 1, unit=False), printable(key)) for value, key in section.entries[:3]]
    return Group(Text(section.title), _pairs(lines))


def full_report(report: Report) -> Group:
    """Return facts, sections, warnings and skipped files; no definitions."""
    parts: list[RenderableType] = [_facts_table(report)]
    for section in report.sections:
        if isinstance(section, ClassTable):
            parts += [part for piece in pieces(section) for part in ("", class_table(piece))]
            parts += _notes(section)
        elif isinstance(section, Summary):
            parts += ["", summary_table(section)]
        elif isinstance(section, Ranking):
            parts += ["", ranking_lines(section)]
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
    headings = {number.name: number.heading for report in reports for number in report.scores.numbers.values()}
    merged = {name: text for report in reports for name, text in report.definitions.items()}
    for name, text in merged.items():
        heading = headings.get(name, "")
        table.add_row(name if heading.lower() in name else f"{name} ({heading})", text)
    return table


def compare(reports: Sequence[Report]) -> Group:
    """Return models side by side: the first column by class, the whole set, and differences to the first model."""
    table = _table()
    table.add_column("", overflow="ellipsis", no_wrap=True, max_width=28)
    for number in range(1, len(reports) + 1):
        table.add_column(Text(f"[{number}]"), justify="right", no_wrap=True)
        if number > 1:
            table.add_column(Text(f"[{number}] - [1]"), justify="right", no_wrap=True)
    tables = [next(part for part in report.sections if isinstance(part, ClassTable)) for report in reports]
    first = tables[0].scores[0]
    classes = reports[0].scores.classes
    left_out = set(classes).intersection(*(table.left_out for table in tables))
    for index, label in enumerate(classes):
        if label in left_out:
            continue
        cells = _compared(first, [report.scores.columns[first.name][index] for report in reports])
        table.add_row(Text(f"{first.heading} {printable(label)}"), *cells, end_section=index == len(classes) - 1)
    summary = next(section for section in reports[0].sections if isinstance(section, Summary))
    for line in summary.lines:
        if all(line.number.name in report.scores.whole for report in reports):
            cells = _compared(line.number, [report.scores.whole[line.number.name] for report in reports])
            table.add_row(line.number.title, *cells, style="bold" if line.is_headline else "")
    legend = [(f"[{number}]", report.model.path) for number, report in enumerate(reports, 1)]
    plain = [line.number.title for line in summary.lines if line.number.format == "plain"]
    note = Text("; ".join(["percent", "differences in points", *(f"{title} as it is" for title in plain)]), style="dim")
    return Group(_pairs(legend), "", table, "", note)


def text_table(section: TextTable) -> Group:
    """Return a table of texts with its title and note."""
    table = _table()
    for index, name in enumerate(section.columns):
        table.add_column(Text(printable(name)), justify="right" if index else "left", overflow="fold")
    for row in section.rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    note = [Text(printable(section.note), style="dim")] if section.note else []
    return Group(Text(printable(section.title), style="bold"), table, *note)


def _notes(section: ClassTable) -> list[Text]:
    return [Text(printable(section.note), style="dim")] if section.note else []


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


def _compared(number: Number, values: Sequence[float]) -> list[Text]:
    """Return the cells of one line: the first value, then each other value with its difference in points."""
    cells = [Text(number.text(values[0], unit=False))]
    scale, digits = (100, 2) if number.format == "percent" else (1, 4)
    for value in values[1:]:
        difference = value - values[0]
        rounded = 0.0 if math.isnan(difference) else round(scale * difference, digits)
        better = rounded if number.higher_is_better else -rounded
        style = "green" if better > 0 else "red" if better < 0 else "dim"
        told = UNDEFINED if math.isnan(difference) else f"{rounded:+.{digits}f}"
        cells += [Text(number.text(value, unit=False)), Text(told, style=style)]
    return cells


def _cell(number: Number, value: float) -> str:
    return number.text(value, 1, unit=False)


def _count(number: Number, count: float, total: float) -> str:
    if not number.of_sum:
        return _short_count(count)
    return f"{100 * count / total:.1f} %" if total else UNDEFINED


def _shade(number: Number, value: float) -> str:
    """Return the colour of a fraction in the table: what needs attention is red or yellow."""
    if math.isnan(value) or number.format != "percent":
        return "dim" if math.isnan(value) else ""
    good = value if number.higher_is_better else 1 - value
    return "bold red" if good < 0.3 else "bold yellow" if good < 0.6 else "bold green"


def _short_count(number: float) -> str:
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.1f} {letter}"
    return f"{number:.0f}"
