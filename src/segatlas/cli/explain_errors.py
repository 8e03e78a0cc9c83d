"""`segatlas explain errors`: the errors of a model on a dataset by their kind, with the images that show each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segatlas.cli.common import (
    CommercialOption,
    DebugOption,
    DeviceOption,
    JsonOption,
    OfflineOption,
    QuietOption,
    human,
    print_json_line,
)
from segatlas.cli.evaluate import STATS_HELP, TTA_HELP, WINDOW_HELP, split_models
from segatlas.cli.predict import parse_window
from segatlas.errors import UsageError
from segatlas.files import require_writable, whole_file
from segatlas.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

    from segatlas.evaluation import Evaluation
    from segatlas.explain.error_report import ErrorReport

REPORT = "errors.json"
EDGE_HELP = "Of class maps: how far an edge may be off, as a fraction of the image's diagonal."
MOST_CLASSES = 30


def errors(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL [KEY=VALUE]...", help="One model; words with = override the recipe.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for errors.json and a sheet of images a kind.")],
    data: Annotated[
        str | None,
        typer.Option("--data", help="A recipe (.yaml or shipped name) or a data folder; default: the run's own."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, val or test; default: the recipe's eval.split.")] = None,
    edge: Annotated[float, typer.Option(help=EDGE_HELP)] = 0.01,
    score: Annotated[
        float | None, typer.Option(help="Of objects: the least score that counts; 0.5, of segments 0.")
    ] = None,
    window: Annotated[str | None, typer.Option(metavar="N|HxW", help=WINDOW_HELP)] = None,
    tta: Annotated[str | None, typer.Option(help=TTA_HELP)] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images of one size per pass.")] = None,
    max_value: Annotated[float | None, typer.Option(help="Value that is full scale in the images.")] = None,
    device: DeviceOption = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    batch_stats: Annotated[bool | None, typer.Option("--batch-stats/--no-batch-stats", help=STATS_HELP)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier call wrote there.")] = False,
    offline: OfflineOption = False,
    commercial_ok: CommercialOption = False,
    json_line: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Sort the errors of a model on a split by kind: confused class, missed, extra, shifted, ragged edge.

    Class maps are judged pixel by pixel, objects and segments one by one; each is of exactly one kind, and errors.json
    says what each means. A file that cannot be used is reported and left out; the exit code is 1 then.
    """
    names, overrides = split_models(models)
    if len(names) > 1:
        raise UsageError(f"got {len(names)} models ({', '.join(names)}), expected one")
    check_folder(out, overwrite=overwrite)

    from segatlas.evaluation import open_evaluation
    from segatlas.explain.error_report import ErrorCounter, errors_of

    ErrorCounter((), edge=edge, score=score or 0)  # a number out of range should not wait for the weights
    options: dict[str, Any] = {"tta": tta, "batch": batch, "device": device, "precision": precision}
    options |= {"window": None if window is None else parse_window(window), "batch_stats": batch_stats}
    options |= {"max_value": max_value, "offline": offline, "commercial_ok": commercial_ok}
    opened = open_evaluation(names[0], data, split, overrides=overrides, **options)
    console = human(json_line=json_line)
    for warning in opened.warnings:
        console.print(f"warning: {warning}", markup=False)
    report = errors_of(opened, edge=edge, score=score, progress=not quiet)
    written = write_report(report, opened, out)
    if not quiet:
        console.print(*_lines(report), sep="\n", markup=False)
        console.print(_table(report))
        console.print(f"written: {printable(out)}: {', '.join(written)}", markup=False)
    for fault in report.skipped:
        console.print(f"left out: {fault}", markup=False)
    if json_line:
        facts = report.to_dict()
        print_json_line({key: facts[key] for key in facts if key not in ("cases", "definitions")} | {"out": str(out)})
    if report.skipped:
        raise typer.Exit(1)


def check_folder(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds an earlier report. UsageError, also where nobody may write."""
    if out.is_file():
        raise UsageError(f"--out: {printable(out)} is a file, expected a folder")
    if (out / REPORT).exists() and not overwrite:
        raise UsageError(f"--out: {printable(out)} holds {REPORT} already; --overwrite replaces it")
    require_writable(out, error=UsageError)


def write_report(report: ErrorReport, opened: Evaluation, out: Path) -> list[str]:
    """Write errors.json, and a sheet for each kind that occurs; return their names. Sheets of earlier calls go."""
    from segatlas.drawing import save_image
    from segatlas.explain.error_figures import kind_sheet
    from segatlas.explain.errors_of_pixels import KINDS

    out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"model": opened.path, "data": opened.plan.data.root, "split": opened.dataset.split}
    with whole_file(out / REPORT) as temporary:
        text = json.dumps({**facts, **report.to_dict()}, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    written = [REPORT]
    for kind in KINDS:
        file = out / f"{kind}.png"
        if report.cases[kind]:
            save_image(kind_sheet(report, kind, opened.dataset, opened.predictor.card.palette), file)
            written.append(file.name)
        else:
            file.unlink(missing_ok=True)
    return written


def _lines(report: ErrorReport) -> list[str]:
    wrong = sum(int(row.sum()) for row in report.counts)
    if report.unit == "pixels":
        return [
            f"{report.images} images; {wrong} of {report.judged} judged pixels are wrong "
            f"({wrong / max(report.judged, 1):.2%}); edge: {report.edge:g} of the diagonal"
        ]
    return [
        f"{report.images} images; {report.right} of {report.judged} true objects are right (IoU of 0.75 or more), "
        f"{wrong} errors; objects with a score of {report.score:g} or more"
    ]


def _table(report: ErrorReport) -> Table:
    from rich.text import Text

    from segatlas.cli.bench import plain_table
    from segatlas.explain.errors_of_pixels import KINDS, TITLES

    made = plain_table("class", *(TITLES[kind] for kind in KINDS))
    order = sorted(range(len(report.classes)), key=lambda index: -int(report.counts[:, index].sum()))
    for index in order[:MOST_CLASSES]:
        made.add_row(Text(report.classes[index], overflow="fold"), *map(str, report.counts[:, index].tolist()))
    if len(order) > MOST_CLASSES:
        rest = report.counts[:, order[MOST_CLASSES:]].sum(axis=1)
        made.add_row(f"{len(order) - MOST_CLASSES} more classes", *map(str, rest.tolist()))
    made.add_row("all", *(str(report.total(kind)) for kind in KINDS))
    wrong = max(int(report.counts.sum()), 1)
    made.add_row("", *(f"{report.total(kind) / wrong:.1%}" for kind in KINDS))
    return made
