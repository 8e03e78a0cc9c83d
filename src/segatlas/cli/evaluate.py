"""`segatlas eval`: score models on a dataset, one report a model, every number defined."""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segatlas.cli import completion
from segatlas.cli.common import (
    CommercialOption,
    DebugOption,
    DeviceOption,
    JsonOption,
    OfflineOption,
    QuietOption,
    human,
    print_json_line,
    telling_moved_data,
)
from segatlas.cli.predict import parse_window
from segatlas.errors import DataError, UsageError
from segatlas.files import require_writable
from segatlas.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from segatlas.evaluation import Evaluation, Report
    from segatlas.evaluation.comparison import Comparison

WINDOW_HELP = "Predict by windows of N or HxW pixels; default: as the model's card says."
DRAWS = 10_000
OUT_HELP = "Folder for eval.json (and compare.json); default: a file of evaluations/ in the run folder."
CSV_HELP = "Folder for per_class.csv and per_image.csv, a row a class or image of each model."
COMPARE_HELP = "Also show the models side by side, with intervals of their differences (paired bootstrap over images)."
BOUNDS_HELP = "Size of medium and of large objects: pixels, or fractions of the image below 1; default: 1024,9216."
SMALL_HELP = "Names of small classes, joined by commas: also their mean IoU and recall."
MODELS_HELP = (
    "Run folders, model folders, checkpoints, published names; words with = override keys of the recipe. Runs joined "
    "by commas, or a quoted pattern with *, are the seeds of one model to --compare."
)
STATS_HELP = "Batch norm by the statistics of the images of a pass (--batch), not by running averages."
SOURCE_HELP = "A control: NAME=absent, or NAME=shuffled[:SEED] for that of another image; may be repeated."
TTA_HELP = "Test-time augmentation: flips, vertical, turns, scales:0.75,1,1.25, exp, joined by commas."


def evaluate(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL|KEY=VALUE", help=MODELS_HELP, autocompletion=completion.models)
    ],
    data: Annotated[
        str | None,
        typer.Option("--data", help="A recipe (.yaml or shipped name) or a data folder; default: the run's own."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, val or test; default: the recipe's eval.split.", autocompletion=completion.splits),
    ] = None,
    tta: Annotated[str | None, typer.Option(help=TTA_HELP)] = None,
    window: Annotated[str | None, typer.Option(metavar="N|HxW", help=WINDOW_HELP)] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images of one size per pass.")] = None,
    max_value: Annotated[float | None, typer.Option(help="Value that is full scale in the images.")] = None,
    device: DeviceOption = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    boundary: Annotated[bool | None, typer.Option(help="Boundary IoU and boundary F-score.")] = None,
    sizes: Annotated[bool | None, typer.Option(help="IoU and recall of small, medium and large objects.")] = None,
    size_bounds: Annotated[str | None, typer.Option(metavar="M,L", help=BOUNDS_HELP)] = None,
    small_classes: Annotated[str | None, typer.Option(metavar="NAMES", help=SMALL_HELP)] = None,
    batch_stats: Annotated[bool | None, typer.Option("--batch-stats/--no-batch-stats", help=STATS_HELP)] = None,
    source: Annotated[list[str] | None, typer.Option("--source", metavar="NAME=HOW", help=SOURCE_HELP)] = None,
    compare: Annotated[bool, typer.Option("--compare", help=COMPARE_HELP)] = False,
    draws: Annotated[int | None, typer.Option(min=1, help=f"Of --compare: draws of the bootstrap [{DRAWS}].")] = None,
    draw_seed: Annotated[int | None, typer.Option(min=0, help="Of --compare: seed of the draws [0].")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also say what each number means.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help=OUT_HELP)] = None,
    csv: Annotated[Path | None, typer.Option("--csv", metavar="DIR", help=CSV_HELP)] = None,
    offline: OfflineOption = False,
    commercial_ok: CommercialOption = False,
    json_line: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Score models on a split of a dataset; --explain and the report's file say what every number means.

    Without --data, a run is scored on the data of its own recipe. All models and data are opened and checked before the
    first image is scored. An image or mask that cannot be used is reported and left out; the exit code is 1 then.
    """
    words, overrides = split_models(models)
    groups = [runs_of(word) for word in words]
    names = [name for group in groups for name in group]
    refuse_twice(names)
    _check_compare(compare, groups, draws, draw_seed)
    folders = plan_folders(names, out, csv)
    options: dict[str, Any] = {"tta": tta, "batch": batch, "device": device, "precision": precision}
    options |= {"boundary": boundary, "sizes": sizes, "window": _parsed(parse_window, window)}
    options |= {"batch_stats": batch_stats, "max_value": max_value, "offline": offline, "commercial_ok": commercial_ok}
    options |= {"sources": source or (), "size_bounds": _parsed(parse_bounds, size_bounds)}
    options |= {"small_classes": _parsed(parse_names, small_classes)}

    from segatlas.evaluation.csv_files import write_tables

    console = human(json_line=json_line)
    opened = _open_all(names, data, split, overrides=overrides, **options)
    if compare:
        check_comparable(opened)
    targets = plan_files(opened, folders, in_run=out is None)
    reports: list[Report] = []
    for target in targets:
        report = opened.pop(0).score(skip_bad=True, progress=not quiet, keep_counts=compare or csv is not None)
        reports.append(report)
        written = _write(report, target)
        _print_report(report, written, console, quiet=quiet, json_line=json_line)
    tables_kept = [] if csv is None else write_tables(reports, csv)
    labels, counts = labels_of(words, groups), [len(group) for group in groups]
    compared = compare_reports(reports, labels, counts, draws or DRAWS, draw_seed or 0) if compare else None
    kept = None if compared is None or out is None else write_comparison(compared, out)
    if not quiet:
        together = compare and len(groups) == len(reports)
        _print_rest(reports, compared, kept, tables_kept, console, side_by_side=together, explain=explain)
    elif not json_line:
        _print_differences(compared, console)
    if json_line:
        _print_record(reports, targets, compared, kept)
    if any(report.skipped for report in reports):
        raise typer.Exit(1)


def _parsed(parse: Callable[[str], Any], text: str | None) -> Any:
    return None if text is None else parse(text)


def _print_record(
    reports: Sequence[Report], targets: Sequence[Path | None], compared: Comparison | None, kept: Path | None
) -> None:
    """Print the line of --json."""
    records = [json_record(report, target) for report, target in zip(reports, targets, strict=True)]
    found = {} if compared is None else {"comparison": {**compared.to_dict(), "file": kept and str(kept)}}
    print_json_line(records[0] if len(records) == 1 else {"reports": records, **found})


def _print_differences(compared: Comparison | None, console: Console) -> None:
    """Print what --quiet leaves of a comparison: a line for each model beside the first."""
    from segatlas.evaluation.comparison_pages import short_differences

    for line in [] if compared is None else short_differences(compared):
        console.print(line, markup=False, soft_wrap=True)


@telling_moved_data()
def _open_all(names: Sequence[str], data: str | None, split: str | None, **options: Any) -> list[Evaluation]:
    """Open all models and data, arguments as of `open_evaluation`, before the first image is scored."""
    from segatlas.evaluation import open_evaluation

    return [open_evaluation(name, data, split, **options) for name in names]


def _print_rest(
    reports: Sequence[Report],
    compared: Comparison | None,
    kept: Path | None,
    tables_kept: Sequence[Path],
    console: Console,
    *,
    side_by_side: bool,
    explain: bool,
) -> None:
    """Print what is told of all models together."""
    from segatlas.evaluation import tables

    if side_by_side:
        console.print(tables.compare(reports), "", soft_wrap=False, sep="\n")
    if compared is not None:
        print_comparison(compared, kept, console)
    for path in tables_kept:
        console.print(f"written: {printable(path)}", markup=False)
    if explain:
        console.print("what the numbers mean", style="bold")
        console.print(tables.definitions_table(reports), soft_wrap=False)


def split_models(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split command-line words into models and `key=value` overrides; a file of that name is a model."""
    models = [word for word in words if "=" not in word or Path(word).exists()]
    if not models:
        raise UsageError("which model? give a run folder, model folder or checkpoint")
    refuse_twice(models)
    return models, [word for word in words if word not in models]


def refuse_twice(models: Sequence[str]) -> None:
    """Raise UsageError where a model is named twice."""
    double = next((model for model in models if models.count(model) > 1), None)
    if double is not None:
        raise UsageError(f"{double} is named twice")


def _check_compare(compare: bool, groups: Sequence[Any], draws: int | None, draw_seed: int | None) -> None:
    """Refuse a comparison of one model, and what is said of a comparison without one."""
    if compare and len(groups) < 2:
        raise UsageError("--compare needs two or more models; runs joined by commas, or a pattern, are one")
    if not compare and not (draws is None and draw_seed is None):
        raise UsageError("--draws and --draw-seed are of --compare, which is not given")


def runs_of(word: str) -> list[str]:
    """Return the runs that a word means: those joined by commas, and those that a pattern finds, by name.

    A word that is the name of a file or folder is that one alone. Of what a pattern finds, folders and .ckpt files are
    runs.
    """
    if Path(word).exists():
        return [word]
    runs: list[str] = []
    for part in filter(None, word.split(",")):
        if not glob.has_magic(part) or Path(part).exists():
            runs.append(part)
            continue
        found = sorted(name for name in glob.glob(part) if Path(name).is_dir() or name.endswith(".ckpt"))
        if not found:
            raise UsageError(f"{part}: no run is called so")
        runs += found
    return runs or [word]


def parse_names(text: str) -> tuple[str, ...]:
    """Return the names of --small-classes. UsageError for none."""
    names = tuple(word.strip() for word in text.split(",") if word.strip())
    if not names:
        raise UsageError("--small-classes: names no class")
    return names


def parse_bounds(text: str) -> tuple[float, float]:
    """Return the two numbers of --size-bounds. UsageError for anything else."""
    from segatlas.config.plain import size_bounds_fault

    try:
        bounds = [float(word) for word in text.split(",")]
    except ValueError:
        bounds = []
    if fault := size_bounds_fault(bounds):
        raise UsageError(f"--size-bounds: got {text!r}; {fault}")
    return bounds[0], bounds[1]


def plan_folders(models: Sequence[str], out: Path | None, csv: Path | None = None) -> list[Path | None]:
    """Return which folder each model's report belongs to: --out, else the run folder that MODEL lies in, else none.

    Several models get a folder each below --out. The folders, and that of --csv, are tried now, before any work.

    Raises:
        UsageError: a folder that cannot be written.
    """
    from segatlas.evaluation.places import run_of

    folders: list[Path | None] = []
    if csv is not None:
        require_writable(csv, error=UsageError)
    for model, name in zip(models, short_names(models), strict=True):
        folder = run_of(model) if out is None else out
        if out is not None and len(models) > 1:
            folder = out / name.strip("/").replace("/", "_")
        folders.append(folder)
        if folder is not None:
            require_writable(folder, error=UsageError)
    return folders


def plan_files(opened: Sequence[Evaluation], folders: Sequence[Path | None], *, in_run: bool) -> list[Path | None]:
    """Return the file of each model's report, None where it is not kept.

    Raises:
        UsageError: the file holds another report, or two models have the same.
    """
    from segatlas.evaluation import places

    place = places.place_in_run if in_run else places.place_in_folder
    files = [None if folder is None else place(folder, one) for one, folder in zip(opened, folders, strict=True)]
    places.check_different(files)
    return files


def short_names(paths: Sequence[str]) -> list[str]:
    """Return the last part of each path, or as many last parts as are needed to tell them apart."""
    parts = [Path(path).parts for path in paths]
    for length in range(1, max(map(len, parts))):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return ["/".join(part) for part in parts]


def labels_of(words: Sequence[str], groups: Sequence[Sequence[str]]) -> list[str]:
    """Return what each model of a comparison is called: its runs by their short names, or the pattern they match."""
    short = dict(zip((flat := [name for group in groups for name in group]), short_names(flat), strict=True))
    names = [",".join(short[run] for run in group) for group in groups]
    patterns = [index for index, word in enumerate(words) if glob.has_magic(word) and "," not in word]
    for index, name in zip(
        patterns, short_names([words[index] for index in patterns]) if patterns else (), strict=True
    ):
        names[index] = name
    return names


def check_comparable(opened: Sequence[Evaluation]) -> None:
    """Raise DataError where models do not stand side by side: other classes, images, or definitions of numbers."""
    from segatlas.evaluation.comparison import options_fault

    first = opened[0]
    keys = [first.dataset.key(index) for index in range(len(first.dataset))]
    for other in opened[1:]:
        if first.predictor.card.classes != other.predictor.card.classes:
            raise DataError(f"{first.path} and {other.path} have different classes; --compare needs the same")
        if keys != [other.dataset.key(index) for index in range(len(other.dataset))]:
            raise DataError(
                f"{first.path} would be scored on {_of(first)}, {other.path} on {_of(other)}; --compare needs the same "
                "images: name them with --data and --split"
            )
        shared = ["size_bounds"] if first.wanted.sizes and other.wanted.sizes else []
        shared += ["boundary_width"] if first.wanted.boundary and other.wanted.boundary else []
        if fault := options_fault(first.settings.options, other.settings.options, shared):
            raise DataError(f"{first.path} and {other.path} {fault}")


def compare_reports(
    reports: Sequence[Report], labels: Sequence[str], counts: Sequence[int], draws: int, seed: int
) -> Comparison | None:
    """Compare models, the first `counts[0]` reports being the runs of the first; None where no classes are counted.

    Raises:
        DataError: images that could be scored by one model and not by another, or with another truth.
    """
    from segatlas.evaluation.comparison import check_same, compare_models

    check_same(reports)
    if any(report.counts is None for report in reports):
        return None
    rest = iter(reports)
    groups = [[next(rest) for _ in range(count)] for count in counts]
    return compare_models(groups, labels, draws=draws, seed=seed)


def write_comparison(comparison: Comparison, out: Path) -> Path:
    """Write compare.json and compare.html into a folder and return the first."""
    from segatlas.evaluation.comparison import COMPARISON_FILE
    from segatlas.evaluation.comparison_pages import PAGE_FILE, write_page

    write_page(comparison, out / PAGE_FILE)
    return comparison.to_json(out / COMPARISON_FILE)


def print_comparison(comparison: Comparison, kept: Path | None, console: Console) -> None:
    """Print the tables of a comparison, and where it is kept."""
    from segatlas.evaluation import comparison_pages, tables

    for section in comparison_pages.sections(comparison):
        console.print(tables.text_table(section), "", soft_wrap=False, sep="\n")
    told = "not kept; --out DIR keeps the comparison"
    if kept is not None:
        told = f"written: {printable(kept)} and {printable(kept.with_name(comparison_pages.PAGE_FILE))}"
    console.print(told, "", markup=False, sep="\n")


def _of(opened: Evaluation) -> str:
    data = opened.dataset
    return f"{data.split} of {opened.plan.data.root} ({len(data)} images)"


def json_record(report: Report, target: Path | None) -> dict[str, Any]:
    """Return what `--json` prints of one model: the whole set's numbers, where the rest is, what was left out."""
    whole, column = report.to_dict(), next(iter(report.scores.columns))  # semantic: iou
    return {
        "model": report.model.path,
        "split": report.data.split,
        **whole["summary"],
        f"per_class_{column}" if column in whole["summary"] else column: {
            row["class"]: row[column] for row in whole["per_class"]
        },
        "skipped": whole["skipped"],
        "warnings": whole["warnings"],
        "report": None if target is None else str(target),
    }


def _write(report: Report, target: Path | None) -> str:
    """Write the report and return where to, in words."""
    if target is None:
        return "not kept: the model lies in no run folder; --out DIR keeps the report"
    replaced = target.exists()
    report.to_json(target)
    return f"written: {printable(target)}" + (" (in place of the same evaluation of before)" if replaced else "")


def _print_report(report: Report, written: str, console: Console, *, quiet: bool, json_line: bool) -> None:
    """Print a report; with --quiet its score alone, and on stderr its warnings and the files left out."""
    from segatlas.evaluation import tables

    if quiet:
        errors = human(json_line=True)
        for line in tables.complaints(report):
            errors.print(line)
        if not json_line:
            console.print(f"{printable(report.model.path)}: {report.headline}", markup=False)
        return
    console.print(tables.full_report(report), soft_wrap=False)
    console.print(written, markup=False)
    console.print()
