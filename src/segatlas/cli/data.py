"""`segatlas data`: check, repair, describe, show, make and convert datasets; the decoded store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from segatlas.cli.common import (
    ConfigFileOption,
    DebugOption,
    JsonOption,
    human,
    print_json_line,
)
from segatlas.cli.data_make import make_pairs, make_priors, make_shapes
from segatlas.cli.data_weaken import grabcut, weaken
from segatlas.cli.data_words import load_data
from segatlas.errors import DataError, UsageError
from segatlas.files import read_text
from segatlas.printable import printable, shell_words
from segatlas.safe_console import progress_bar

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from segatlas.data.checks import CheckReport, Finding
    from segatlas.data.checks.convert_objects import Form
    from segatlas.data.dataset import SegmentationData
    from segatlas.data.object_statistics import ObjectStatistics
    from segatlas.data.statistics import SplitStatistics
    from segatlas.recipe import Config

app = typer.Typer(no_args_is_help=True, help="Check, repair, describe, show, make, weaken and convert datasets.")
for command, function in (("make-shapes", make_shapes), ("make-pairs", make_pairs), ("make-priors", make_priors)):
    app.command(command)(function)
app.command()(weaken)
app.command()(grabcut)

MOST_FILES = 5
BAR_WIDTH = 16
OBJECT_FORMS = ("coco", "panoptic", "instances")
TARGETS = ("folder", *OBJECT_FORMS, "cityscapes-ids")

DataWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="ROOT|RECIPE [KEY=VALUE]...", help="A data folder, or a recipe; then keys such as data.label_map=..."
    ),
]
JobsOption = Annotated[int | None, typer.Option(min=1, help="Threads that read; default: the processors, at most 8.")]


@app.command()
def check(
    words: DataWords = None,
    config_file: ConfigFileOption = None,
    split: Annotated[str | None, typer.Option(help="Look at train, val or test only.")] = None,
    fix: Annotated[Path | None, typer.Option("--fix", metavar="OUT", help="Write a repaired copy here.")] = None,
    jobs: JobsOption = None,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Look into every image and mask, name what is wrong and how to repair it. Exits 1 where there is an error.

    Of a folder every kind of truth is read, of a recipe masks and what its task needs. --fix writes a repaired copy to
    a new folder; the data itself is never changed.
    """
    from segatlas.data.checks import examine, repair
    from segatlas.data.checks.repair import check_new_folder

    if fix is not None and split is not None:
        raise UsageError("--fix writes all splits; leave --split out")
    cfg = load_data(words, config_file)
    console = human(json_line=json_line)
    if fix is not None and cfg.data.root is not None:
        check_new_folder(fix, cfg.data.root)
    with progress_bar("reading") as bar:
        found = examine(
            cfg.data,
            split=split,
            target=stated_target(cfg, words, config_file),
            num_classes=cfg.model.num_classes,
            max_value=cfg.model.input.stated_max_value,
            jobs=jobs,
            progress=bar.report,
        )
    print_check_report(found, console, None if fix is not None else _fix_command(words, config_file))
    record = found.to_dict()
    if fix is not None:
        with progress_bar("writing") as bar:
            repair(found, fix, bar.report)
        record["fixed"] = str(fix)
        _print_fixed(fix, console)
    elif found.ok and found.splits.get("train", (0, 0))[0]:
        console.print(f"next: {_train_command(words, config_file)}", markup=False)
    if json_line:
        print_json_line(record)
    if not found.ok:
        raise typer.Exit(1)


@app.command()
def stats(
    words: DataWords = None,
    config_file: ConfigFileOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the numbers to this JSON file.")] = None,
    jobs: JobsOption = None,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Count sizes, values, class pixels and images of every split, and suggest class weights and normalisation.

    Where there are objects, they are counted too: of each class, by size, in an image. Of a recipe that trains on
    objects they alone are counted, and masks are left aside.
    """
    import json

    from segatlas.data import create_dataset, targets_of
    from segatlas.data.checks import available_splits
    from segatlas.data.object_statistics import describe_objects
    from segatlas.data.statistics import describe
    from segatlas.files import whole_file

    cfg = load_data(words, config_file)
    console = human(json_line=json_line)
    record: dict[str, object] = {"root": cfg.data.root, "name": cfg.data.name, "splits": {}}
    described, objects = [], {}
    stated = stated_target(cfg, words, config_file)
    for split in available_splits(cfg.data):
        targets = shown_targets(targets_of(cfg.data, split), stated)
        dataset = create_dataset(cfg.data, split, cfg.seed, target=targets[0])
        with progress_bar(f"reading {dataset.split}") as bar:
            described.append(
                describe(dataset, declared=cfg.model.input.stated_max_value, jobs=jobs, progress=bar.report)
            )
        print_statistics(described[-1], console)
        if "InstancesTarget" in targets:
            with progress_bar(f"reading objects of {dataset.split}") as bar:
                given = create_dataset(cfg.data, split, cfg.seed, target="InstancesTarget")
                objects[dataset.split] = describe_objects(given, jobs=jobs, progress=bar.report)
            print_object_statistics(objects[dataset.split], console)
    record["splits"] = {
        one.split: one.to_dict() | ({"objects": objects[one.split].to_dict()} if one.split in objects else {})
        for one in described
    }
    _print_suggestion(described[0], console)
    if out is not None:
        with whole_file(out) as temporary:
            temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        console.print(f"written: {printable(out)}", markup=False)
    if json_line:
        print_json_line(record)
    if any(one.skipped for one in described) or any(one.skipped for one in objects.values()):
        raise typer.Exit(1)


@app.command()
def preview(
    words: DataWords = None,
    config_file: ConfigFileOption = None,
    count: Annotated[int, typer.Option(min=1, help="Images on the sheet, evenly spread over the split.")] = 8,
    out: Annotated[Path, typer.Option("--out", help="The image to write.")] = Path("preview.png"),
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    augmented: Annotated[bool, typer.Option("--augmented", help="Also show what training makes of them.")] = False,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw a sheet: image | mask | overlay with legend, and with --augmented a training sample of the recipe.

    Further inputs stand beside the image. Where there are objects or segments, each is drawn by itself in a further
    column.
    """
    import numpy as np

    from segatlas.data import create_dataset, targets_of
    from segatlas.data.choices import chosen_transforms
    from segatlas.drawing import save_image, sheet

    cfg = load_data(words, config_file)
    targets = shown_targets(targets_of(cfg.data, split), stated_target(cfg, words, config_file))
    dataset = create_dataset(cfg.data, split, cfg.seed, target=targets[0])
    further = {
        title: create_dataset(cfg.data, split, cfg.seed, target=target)
        for title, target in (("objects", "InstancesTarget"), ("segments", "SegmentsTarget"))
        if target in targets
    }
    console = human(json_line=json_line)
    if augmented:
        transforms, told = chosen_transforms(cfg.transforms, dataset)
        cfg = cfg.model_copy(update={"transforms": transforms})
        for line in told:
            console.print(line, markup=False)
    rows, names, failed = [], [], []
    for index in np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)).tolist():
        try:
            rows.append(preview_row(dataset, index, further.values(), cfg if augmented else None))
            names.append(dataset.key(index))
        except DataError as error:
            failed.append(str(error))
            console.print(f"left out: {error}", markup=False)
    if not rows:
        raise DataError(f"no image of {split} can be drawn; run segatlas data check", cfg.data.root)
    titles = ["image", *dataset.sources, "mask", "overlay", *further, *(["training sample"] if augmented else [])]
    try:
        save_image(sheet(rows, titles, names), out)
    except ValueError as error:
        raise UsageError(f"--out: {error}") from error
    console.print(f"{len(rows)} images of {split} -> {printable(out)}", markup=False)
    if json_line:
        print_json_line({"out": str(out), "images": names, "failed": failed})
    if failed:
        raise typer.Exit(1)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A data folder or recipe; for cityscapes-ids a folder of masks.")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)] = None,
    to: Annotated[str, typer.Option("--to", help=f"{' or '.join(TARGETS)}.")] = "folder",
    resize: Annotated[
        str | None,
        typer.Option(
            "--resize",
            metavar="SIZE",
            help="With --to folder: write images at another size, short:N, long:N, fit:SHORTxLONG or HxW; labels take "
            "the nearest pixel.",
        ),
    ] = None,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Write any readable dataset as a plain folder of images, index masks and maps of objects, with classes.json.

    --to coco writes its objects as COCO's file, --to instances as maps, --to panoptic its segments as COCO's maps.

    --to cityscapes-ids turns predicted masks (19 train ids) into label ids, as the Cityscapes server wants them.
    """
    from segatlas.data.checks.convert import to_cityscapes_ids, to_folder
    from segatlas.data.checks.convert_objects import to_objects

    if to not in TARGETS:
        raise UsageError(f"--to: got {to!r}, expected {' or '.join(TARGETS)}")
    if resize is not None and to != "folder":
        raise UsageError(f"--resize: goes with --to folder, not with --to {to}")
    console = human(json_line=json_line)
    if to == "cityscapes-ids":
        if not Path(source).is_dir():
            raise UsageError(f"{source}: no such folder")
        with progress_bar("writing") as bar:
            counts = {"masks": to_cityscapes_ids(source, out, bar.report)}
    elif to in OBJECT_FORMS:
        cfg = load_data([source, *(words or [])])
        with progress_bar("writing") as bar:
            counts = to_objects(cfg.data, out, cast("Form", to), bar.report)
    else:
        cfg = load_data([source, *(words or [])])
        with progress_bar("writing") as bar:
            counts = to_folder(cfg.data, out, bar.report, target=stated_target(cfg, [source], None), resize=resize)
    console.print(
        ", ".join(f"{count} {name}" for name, count in counts.items()) + f" -> {printable(out)}", markup=False
    )
    if json_line:
        print_json_line({"out": str(out), "to": to, **counts})


@app.command()
def store(
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything in it.")] = False,
    folder: Annotated[Path | None, typer.Option("--folder", help="Where a recipe's data.store says otherwise.")] = None,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show what the decoded store holds: the images and labels that training keeps decoded on disk."""
    from segatlas.data.store import Store, default_folder

    console = human(json_line=json_line)
    kept = Store(folder or default_folder())
    usage = kept.clear() if clear else kept.usage()
    text = f"{usage.entries} arrays, {usage.bytes / 1e9:.2f} GB"
    console.print(
        f"removed {text} from {printable(usage.folder)}" if clear else f"{printable(usage.folder)}: {text}",
        markup=False,
    )
    if not clear:
        console.print(f"free on its disk: {usage.free / 1e9:.1f} GB", markup=False)
    if json_line:
        record = {"folder": str(usage.folder), "entries": usage.entries, "bytes": usage.bytes, "free": usage.free}
        print_json_line({**record, "cleared": clear})


def stated_target(cfg: Config, words: Sequence[str] | None, config_file: Path | None) -> str | None:
    """Return the type of truth that a recipe's task needs; None where a folder was named, all of whose truths count."""
    from segatlas.tasks import TASKS

    first = next(iter(words or ()), "")
    names_recipe = config_file is not None or (first and "=" not in first and not Path(first).expanduser().is_dir())
    return TASKS[cfg.task].target if names_recipe else None


def shown_targets(given: tuple[str, ...], stated: str | None) -> tuple[str, ...]:
    """Return the truths to look at, the plainest first: objects alone where a recipe needs no more, as `check` does."""
    return (stated,) if stated == "InstancesTarget" and stated in given else given


def print_check_report(found: CheckReport, console: Console, fix_command: str | None) -> None:
    """Print what was looked at, each finding with its files and repair, and what to do next."""
    from rich.text import Text

    console.print(Text.assemble(("data check ", "bold"), str(found.root), f"  (data.name={found.name})"))
    for split, (images, masks) in found.splits.items():
        further = "".join(f" {count:>6} {label}" for label, count in found.further.get(split, {}).items())
        console.print(f"  {split:<6} {images:>6} images {masks:>6} masks{further}", markup=False)
    if found.classes:
        shown = ", ".join(found.classes[:12]) + (", ..." if len(found.classes) > 12 else "")
        console.print(f"  {len(found.classes)} classes: {shown}", markup=False)
    for finding in found.findings:
        console.print()
        _print_finding(finding, found, console)
    console.print()
    errors, warnings = len(found.errors), len(found.warnings)
    counts = f"{_number(errors, 'error')}, {_number(warnings, 'warning')}"
    images = sum(images for images, _ in found.splits.values())
    if errors == 0:
        verdict = Text("clean", "bold green") if warnings == 0 else Text("usable", "bold green")
    else:
        verdict = Text("faulty", "bold red")
    console.print(Text.assemble(verdict, f": {counts} in {_number(images, 'image')}"))
    if fix_command is not None and found.names_a_repair:
        console.print(f"A repaired copy in a new folder: {fix_command}", markup=False)


def _fix_command(words: Sequence[str] | None, config_file: Path | None) -> str:
    from segatlas.data.checks.findings import FIX_OPTION

    typed = [*(words or ()), *(["--config", str(config_file)] if config_file else [])]
    return f"segatlas data check {shell_words(typed)} {FIX_OPTION}"


def _train_command(words: Sequence[str] | None, config_file: Path | None) -> str:
    """Return what trains on the data that were looked at, with the keys that were given."""
    from segatlas.config import recipes

    typed = [*(words or ())]
    if typed and typed[0] in recipes() and Path(typed[0]).is_dir():
        typed[0] = f"./{typed[0]}"  # a folder that is called as a recipe is
    typed += ["--config", str(config_file)] if config_file else []
    return f"segatlas train {printable(shell_words(typed))}"


def _print_finding(finding: Finding, found: CheckReport, console: Console) -> None:
    from rich.text import Text

    style = "bold red" if finding.severity == "error" else "bold yellow"
    count = f"  {_number(len(finding.files), 'file')}" if finding.files else ""
    console.print(Text.assemble((finding.severity.upper(), style), "  ", (finding.title, "bold"), count))
    console.print(Text.assemble(("  fault   ", "dim"), finding.fault))
    details = finding.details or ("",) * len(finding.files)
    for path, detail in list(zip(finding.files, details, strict=True))[:MOST_FILES]:
        root = found.root
        shown = path.relative_to(root) if path != root and path.is_relative_to(root) else path
        console.print(Text.assemble("            ", (str(shown), "cyan"), f"   {detail}" if detail else ""))
    if len(finding.files) > MOST_FILES:
        more = len(finding.files) - MOST_FILES
        console.print(Text.assemble("            ", (f"... and {more} more (--json names all)", "dim")))
    for number, line in enumerate(finding.repair.splitlines()):
        console.print(Text.assemble(("  repair  " if number == 0 else "          ", "dim"), (line, "green")))


def _print_fixed(out: Path, console: Console) -> None:
    import json

    from segatlas.data.checks import FIXES_FILE

    content = json.loads(read_text(out / FIXES_FILE))
    written = ", ".join(f"{count} {split}" for split, count in content["written"].items())
    changed = sum("done" in entry for entry in content["files"])
    left_out = sum("left_out" in entry for entry in content["files"])
    console.print()
    console.print(
        f"repaired copy: {printable(out)}  "
        f"({written}; {changed} repaired, {left_out} left out, see {printable(out / FIXES_FILE)})",
        markup=False,
    )
    for note in content["notes"]:
        console.print(f"note: {note}; change {out / 'classes.json'} if that is not so", markup=False)
    console.print(f"next: segatlas train unet_folder data.root={printable(out)}", markup=False)


def print_statistics(one: SplitStatistics, console: Console) -> None:
    """Print the numbers of one split: images in two lines, classes in a table with bars."""
    from rich.table import Table

    height, width = one.heights, one.widths
    sizes = ", ".join(f"{w} x {h} ({count})" for (h, w), count in one.sizes)
    depths = ", ".join(f"{depth} ({count})" for depth, count in one.depths.items())
    console.print(f"{one.split}: {_number(one.images, 'image')}", style="bold", markup=False)
    console.print(f"  width   {width[0]} / {width[1]} / {width[2]} (smallest / median / largest)", markup=False)
    console.print(f"  height  {height[0]} / {height[1]} / {height[2]}    commonest: {sizes}", markup=False)
    console.print(f"  values  {_number(one.channels, 'channel')}, {depths}, largest {one.peak:g}", markup=False)
    if one.doubt:
        console.print(f"  warning: {one.doubt}", style="yellow", markup=False)
    names = ("Class", "Fraction", "", "Pixels", "Images", "Thick", "Weight")
    table = Table(*names, box=None, pad_edge=False, padding=(0, 2))
    for column in (1, 3, 4, 5, 6):
        table.columns[column].justify = "right"
    largest = max(one.class_fractions, default=0) or 1
    rows = zip(
        one.classes, one.class_fractions, one.class_pixels, one.class_images, one.thickness, one.weights, strict=True
    )
    for name, fraction, pixels, images, thick, weight in rows:
        bar = "█" * round(BAR_WIDTH * fraction / largest) or ("▏" if pixels else "")
        seen = str(images) if images else "never"
        thickness = "" if thick is None else f"{thick:.1f}"
        table.add_row(name, f"{100 * fraction:.2f} %", bar, f"{pixels:,}", seen, thickness, f"{weight:.3f}")
    table.add_row("ignore", f"{100 * one.ignored:.2f} %", style="dim")
    console.print(table, soft_wrap=False)
    for text in one.skipped[:MOST_FILES]:
        console.print(f"  skipped: {text}", style="red", markup=False)
    if len(one.skipped) > MOST_FILES:
        console.print(f"  ... and {len(one.skipped) - MOST_FILES} more skipped: segatlas data check names them")
    console.print()


def print_object_statistics(one: ObjectStatistics, console: Console) -> None:
    """Print how many objects a split has, and of each class how many and how large they are."""
    from rich.table import Table

    least, median, most = one.per_image
    console.print(f"{one.split}: {_number(one.objects, 'object')} in {_number(one.images, 'image')}", style="bold")
    console.print(f"  in an image {least} / {median} / {most} (fewest / median / most); {one.without} without any")
    table = Table("Class", "Objects", "Images", "Small", "Medium", "Large", "Area", "Crowds", box=None, pad_edge=False)
    for column in range(1, 8):
        table.columns[column].justify = "right"
        table.columns[column].no_wrap = True
    for row in one.classes:
        area = "" if row.areas is None else " / ".join(f"{value:,}" for value in row.areas)
        counts = (row.objects, row.images, row.small, row.medium, row.large)
        if row.objects or row.crowds:
            table.add_row(printable(row.name), *(f"{count:,}" for count in counts), area, str(row.crowds))
    console.print(table, soft_wrap=False)
    absent = [row.name for row in one.classes if not row.objects and not row.crowds]
    if absent:
        console.print(f"  no object of: {printable(', '.join(absent))}", style="dim", markup=False)
    for text in one.skipped[:MOST_FILES]:
        console.print(f"  skipped: {text}", style="red", markup=False)
    console.print("  small below 32 x 32 pixels, large from 96 x 96; area smallest / median / largest", style="dim")
    console.print()


def _print_suggestion(train: SplitStatistics, console: Console) -> None:
    mean, std = (", ".join(f"{value:.4f}" for value in values) for values in (train.mean, train.std))
    console.print(f"from {train.split}, for a network that starts from random weights:", style="bold")
    console.print(f'  "model.input={{mean: [{mean}], std: [{std}], max_value: {train.max_value:g}}}"', markup=False)
    console.print("class weights of the table above: losses with class_weights: auto", markup=False)
    console.print("fractions are of labelled pixels, 'ignore' of all pixels; thick: pixels across", style="dim")


def preview_row(
    dataset: SegmentationData, index: int, further: Iterable[SegmentationData], augment: Config | None
) -> list[np.ndarray | None]:
    """Return image, sources, mask colours and overlay of a sample, and with a recipe one training sample of it.

    further: the same split with truths of objects or segments, of which each is drawn.
    """
    import numpy as np

    from segatlas.data.statistics import label_of
    from segatlas.drawing import color_mask, overlay, source_view, truth_overlay, viewable
    from segatlas.labels import IGNORE
    from segatlas.structures import InstancesTarget, SegmentsTarget

    sample = dataset.load(index)
    image = viewable(sample.image)
    label = label_of(sample.target)
    if label is None:
        label = np.full(image.shape[:2], IGNORE, np.uint8)
    shown = overlay(image, label, dataset.palette, dataset.classes)
    sources = [sample.sources.get(name) for name in dataset.sources]
    row: list[np.ndarray | None] = [image]
    row += [None if one is None else source_view(one.array, one.kind, dataset.palette) for one in sources]
    row += [color_mask(label, dataset.palette), shown]
    for other in further:
        truth = other.truth(index)
        row.append(
            truth_overlay(image, truth, other.palette) if isinstance(truth, InstancesTarget | SegmentsTarget) else None
        )
    if augment is not None:
        from segatlas.data.transforms import Pipeline

        channels, limit = sample.image.shape[2], augment.model.input.max_value
        pipeline = Pipeline.from_config(augment.transforms, (0.0,) * channels, (1.0,) * channels, limit, channels)
        prepared = pipeline(sample, np.random.default_rng([augment.seed, 0, index]))
        changed = viewable(np.clip(prepared.image * 255 + 0.5, 0, 255).astype(np.uint8))
        label = label_of(prepared.target)
        assert label is not None  # a prepared sample has a truth
        row.append(overlay(changed, label, dataset.palette, dataset.classes, alpha=0.35, legend=False))
    return row


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
