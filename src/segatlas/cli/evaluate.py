"""`segatlas eval`: score models on a data set, one report a model, every number defined."""

from __future__ import annotations

import os
from collections.abc import Sequence
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
from segatlas.cli.predict import parse_window
from segatlas.errors import DataError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from segatlas.evaluation import Report

WINDOW_HELP = "Predict by windows of N or HxW pixels; default: as the model's card says."
TTA_HELP = "Test-time augmentation: flips, vertical, turns, scales:0.75,1,1.25, joined by commas."


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|KEY=VALUE",
            help="Run folders, model folders, checkpoints, published names; words with = override keys of the recipe.",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option("--data", help="A recipe (.yaml or shipped name) or a data folder; default: the run's own."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, val or test; default: the recipe's eval.split.")] = None,
    tta: Annotated[str | None, typer.Option(help=TTA_HELP)] = None,
    window: Annotated[str | None, typer.Option(metavar="N|HxW", help=WINDOW_HELP)] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Pictures of one size per pass.")] = None,
    max_value: Annotated[float | None, typer.Option(help="Value that is full scale in the images.")] = None,
    device: DeviceOption = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    boundary: Annotated[bool | None, typer.Option(help="Boundary IoU and boundary F-score.")] = None,
    sizes: Annotated[bool | None, typer.Option(help="Recall of small, medium and large objects.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Also show the models side by side.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for eval.json; default: the run folder.")] = None,
    offline: OfflineOption = False,
    commercial_ok: CommercialOption = False,
    json_line: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Score models on a split of a data set and say what every number means.

    Without --data, a run is scored on the data of its own recipe. A picture or mask that cannot be used is reported and
    left out; the exit code is 1 then.
    """
    names, overrides = split_models(models)
    if compare and len(names) < 2:
        raise UsageError("--compare needs two or more models")
    targets = plan_files(names, out)
    options: dict[str, Any] = {"tta": tta, "batch": batch, "device": device, "precision": precision}
    options |= {"boundary": boundary, "sizes": sizes, "window": None if window is None else parse_window(window)}
    options |= {"max_value": max_value, "offline": offline, "commercial_ok": commercial_ok}

    from segatlas import evaluation
    from segatlas.evaluation import tables

    console = human(json_line=json_line)
    reports: list[Report] = []
    for name, target in zip(names, targets, strict=True):
        report = evaluation.evaluate(
            name, data, split, overrides=overrides, skip_bad=True, progress=not quiet, **options
        )
        if compare and reports:
            check_comparable(reports[0], report)
        reports.append(report)
        if target is not None:
            report.to_json(target)
        _print_report(report, target, console, quiet)
    if not quiet:
        if compare:
            console.print(tables.compare(reports), "", soft_wrap=False, sep="\n")
        console.print("what the numbers mean", style="bold")
        console.print(tables.definitions_table(reports), soft_wrap=False)
    if json_line:
        records = [json_record(report, target) for report, target in zip(reports, targets, strict=True)]
        print_json_line(records[0] if len(records) == 1 else {"reports": records})
    if any(report.skipped for report in reports):
        raise typer.Exit(1)


def split_models(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split command-line words into models and `key=value` overrides; a file of that name is a model."""
    models = [word for word in words if "=" not in word or Path(word).exists()]
    if not models:
        raise UsageError("which model? give a run folder, model folder or checkpoint")
    double = next((model for model in models if models.count(model) > 1), None)
    if double is not None:
        raise UsageError(f"{double} is named twice")
    return models, [word for word in words if word not in models]


def plan_files(models: Sequence[str], out: Path | None) -> list[Path | None]:
    """Return where each model's eval.json goes: below --out, else into the run folder where MODEL is one, else nowhere.

    Several models get a folder each below --out. Folders are made and tried now, before any work.

    Raises:
        UsageError: a folder that cannot be written.
    """
    from segatlas.evaluation.report import REPORT_FILE
    from segatlas.evaluation.sources import CONFIG_FILE

    files: list[Path | None] = []
    for model, name in zip(models, short_names(models), strict=True):
        folder = Path(model) if (Path(model) / CONFIG_FILE).is_file() else None
        if out is not None:
            folder = out if len(models) == 1 else out / name.strip("/").replace("/", "_")
        files.append(None if folder is None else folder / REPORT_FILE)
        if folder is not None:
            _try_folder(folder)
    return files


def short_names(paths: Sequence[str]) -> list[str]:
    """Return the last part of each path, or as many last parts as are needed to tell them apart."""
    parts = [Path(path).parts for path in paths]
    for length in range(1, max(map(len, parts))):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return ["/".join(part) for part in parts]


def check_comparable(first: Report, other: Report) -> None:
    """Raise DataError where two reports do not stand side by side: other classes, or other pictures."""
    if first.scores.classes != other.scores.classes:
        raise DataError(f"{first.model.path} and {other.model.path} have different classes; --compare needs the same")
    if [picture.key for picture in first.pictures] != [picture.key for picture in other.pictures]:
        raise DataError(
            f"{first.model.path} was scored on {first.data.split} of {first.data.root} "
            f"({len(first.pictures)} pictures), {other.model.path} on {other.data.split} of {other.data.root} "
            f"({len(other.pictures)} pictures); --compare needs the same pictures: name them with --data and --split"
        )


def json_record(report: Report, target: Path | None) -> dict[str, Any]:
    """Return what `--json` prints of one model: the whole set's numbers, where the rest is, what was left out."""
    whole = report.to_dict()
    return {
        "model": report.model.path,
        "split": report.data.split,
        **whole["summary"],
        "iou": {row["class"]: row["iou"] for row in whole["per_class"]},
        "skipped": whole["skipped"],
        "warnings": whole["warnings"],
        "report": None if target is None else str(target),
    }


def _print_report(report: Report, target: Path | None, console: Console, quiet: bool) -> None:
    """Print a report; with --quiet only its warnings and the files left out, on stderr."""
    from segatlas.evaluation import tables

    if quiet:
        errors = human(json_line=True)
        for line in tables.complaints(report):
            errors.print(line)
        return
    console.print(tables.full_report(report), soft_wrap=False)
    if target is not None:
        console.print(f"written: {target}", markup=False)
    console.print()


def _try_folder(folder: Path) -> None:
    trial = folder / f".segatlas.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise UsageError(f"cannot write to the folder {folder}: {error.strerror or error}") from error
