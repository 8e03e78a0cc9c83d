"""`segatlas bench`: time, memory, parameters and FLOPs of models, side by side."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segatlas.cli import completion
from segatlas.cli.common import DebugOption, JsonOption, OfflineOption, human, print_json_line
from segatlas.errors import UsageError
from segatlas.files import require_writable, whole_file
from segatlas.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from segatlas.bench import BenchReport, RealtimeReport, RealtimeSettings

MODEL = (
    "NAME or NAME:FIELD=VALUE,... (random weights), run folder or model folder. None, with --protocol: all real-time "
    "networks."
)


def bench(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL...]", help=MODEL, show_default=False, autocompletion=completion.networks),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Size of the image; default 512x512, by protocol 1024x2048.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images a call.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch; default: its own choice.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp32,bf16.")] = "fp32",
    repeats: Annotated[int, typer.Option(min=1, help="Measured calls of each piece.")] = 10,
    num_classes: Annotated[int, typer.Option(min=1, help="Classes of models made from a name.")] = 19,
    protocol: Annotated[
        str | None, typer.Option(metavar="realtime", help="Frames a second as papers on real-time networks count them.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="With --protocol: seconds each way is timed.")] = 6.0,
    chart: Annotated[
        Path | None,
        typer.Option("--chart", metavar="FILE.png", help="With --protocol: published mIoU over speed."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.json", help="Write the figures there.")] = None,
    offline: OfflineOption = False,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Measure models on this machine's processor: time, processor time, peak memory, parameters, FLOPs.

    `forward` is the network alone; `predict` the whole way from a uint8 image to its class map or objects. They
    take turns; ratios are against the first row. Set OMP_WAIT_POLICY=PASSIVE before for steady processor times.
    """
    from segatlas.bench import BenchSettings, RealtimeSettings, measure
    from segatlas.bench.settings import parse_precisions, parse_size

    for file in (out, chart):
        if file is not None and file.is_dir():
            raise UsageError(f"--{'out' if file is out else 'chart'}: {file} is a folder, expected a file")
        if file is not None:
            require_writable(file.parent, error=UsageError)
    if protocol not in (None, "realtime"):
        raise UsageError(f"--protocol: got {protocol!r}, expected realtime")
    if protocol is None and chart is not None:
        raise UsageError("--chart: only with --protocol realtime")
    if protocol is not None:
        if batch != 1:
            raise UsageError(f"--batch: got {batch}, the protocol is for one image")
        asked = RealtimeSettings(
            size=parse_size(size or "1024x2048"),
            threads=threads,
            precisions=parse_precisions(precision),
            seconds=seconds,
            num_classes=num_classes,
        )
        realtime(models or [], asked, out=out, chart=chart, json_line=json_line)
        return
    settings = BenchSettings(
        size=parse_size(size or "512x512"),
        batch=batch,
        threads=threads,
        precisions=parse_precisions(precision),
        repeats=repeats,
        num_classes=num_classes,
    )
    console = human(json_line=json_line)
    with console.status("loading") as status:
        report = measure(models or [], settings, progress=status.update)
    facts = asdict(report)
    if out is not None:
        write_json(facts, out)
    machine = report.machine
    console.print(f"{machine.processor}, {machine.cores} cores, {machine.threads} threads, torch {machine.torch}")
    console.print(models_table(report), *times_tables(report))
    console.print(f"{report.unit}.", *notices(report), report.load.message, sep="\n", markup=False)
    if out is not None:
        console.print(f"written: {printable(out)}", markup=False)
    if json_line:
        print_json_line(facts)


def realtime(
    models: list[str], settings: RealtimeSettings, *, out: Path | None, chart: Path | None, json_line: bool
) -> None:
    """Run the protocol and tell what it found."""
    from segatlas.bench import measure_realtime
    from segatlas.bench.realtime import NETWORKS, published_miou

    if chart is not None and all(published_miou(model) is None for model in models or NETWORKS):
        raise UsageError("--chart: no mIoU is published for any of these models")
    console = human(json_line=json_line)
    with console.status("loading") as status:
        report = measure_realtime(models, settings, progress=status.update)
    facts = asdict(report)
    if out is not None:
        write_json(facts, out)
    if chart is not None:
        write_chart(report, chart)
    _print_realtime(report, console)
    for file in (out, chart):
        if file is not None:
            console.print(f"written: {printable(file)}", markup=False)
    if json_line:
        print_json_line(facts)


def _print_realtime(report: RealtimeReport, console: Console) -> None:
    machine, settings = report.machine, report.settings
    where = f"{machine.processor}, {machine.threads} threads" if settings.device == "cpu" else settings.device
    console.print(f"{where}, torch {machine.torch}; 1 image of {settings.size[0]}x{settings.size[1]}", markup=False)
    table = plain_table("model", "parameters", "GMACs", "published mIoU", "by")
    for facts in report.models:
        miou = "none" if facts.miou is None else f"{facts.miou:.2f} %"
        size = (f"{facts.parameters / 1e6:.2f} M", f"{facts.macs / 1e9:.1f}")
        table.add_row(_plain(facts.model), *size, miou, facts.source or "")
    console.print(table)
    for way, meaning in report.ways.items():
        table = plain_table("model", "prec", "fps", "ms", "cpu ms", "ratio", "gain", "cpu gain", "same labels")
        table.title = f"{way}: {meaning}"
        for row in (row for row in report.rows if row.way == way):
            same = "" if row.same_labels is None else f"{row.same_labels:.4%}"
            numbers = (row.fps, row.wall_ms, row.cpu_ms)
            ratios = (row.ratio, row.gain, row.gain_cpu)
            table.add_row(
                _plain(row.model),
                row.precision,
                *(f"{number:.1f}" for number in numbers),
                *(f"{number:.2f}" for number in ratios),
                same,
            )
        console.print(table)
    console.print(
        "ratio: frames a second over the first model's the same way. gain: the plain way's time of the same model over "
        "this. Published mIoU: Cityscapes val, one scale.",
        f"{report.unit}.",
        report.load.message,
        sep="\n",
        markup=False,
    )


def write_chart(report: RealtimeReport, path: Path) -> None:
    """Draw the published mIoU of the models over what was measured end to end, one point a precision."""
    from segatlas.drawing.plots import scatter_image

    published = {facts.model: facts for facts in report.models}
    rows = [row for row in report.rows if row.way == "end to end" and published[row.model].miou is not None]
    names = {row.precision for row in rows}
    called = {row: f"{row.model}, {row.precision}" if len(names) > 1 else row.model for row in rows}
    height, width = report.settings.size
    content = scatter_image(
        {called[row]: (row.fps, float(published[row.model].miou or 0)) for row in rows},
        groups={called[row]: f"mIoU: {published[row.model].source}" for row in rows},
        title=f"published accuracy over measured speed, 1 image of {height} x {width}",
        xlabel=f"images a second, image in to labels out, {' and '.join(sorted(names))}, {report.machine.processor}, "
        f"{report.machine.threads} threads",
        ylabel="published mIoU on Cityscapes val, %, fp32, one scale",
    )
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def models_table(report: BenchReport) -> Table:
    """Return what the models cost on any machine."""
    table = plain_table("model", "input", "parameters", "GFLOPs", "GMACs")
    for facts in report.models:
        table.add_row(
            _plain(facts.model),
            "x".join(map(str, facts.input)),
            f"{facts.parameters / 1e6:.2f} M",
            f"{facts.flops / 1e9:.2f}",
            f"{facts.macs / 1e9:.2f}",
        )
    return table


def notices(report: BenchReport) -> list[str]:
    """Return what should be known with the figures: labels that bf16 changes, and a path that only torch takes."""
    lines = [
        f"{facts.model}: {facts.bf16_agreement:.2%} of the image's pixels have the same label in bf16 as in fp32."
        for facts in report.models
        if facts.bf16_agreement is not None
    ]
    if report.machine.threads == 1:
        lines.append(
            "At one thread torch sends plain 1x1 convolutions of small batches to a slow path, which these figures "
            "avoid: other libraries look up to twice as slow here as at two threads."
        )
    return lines


def times_tables(report: BenchReport) -> list[Table]:
    """Return one table a piece: times a call in milliseconds, ratios against the first row, memory in MiB."""
    titles = {
        "forward": "forward: network input to output",
        "predict": "predict: uint8 image, with its further inputs, to class map or objects",
    }
    call = "1 image" if report.settings.batch == 1 else f"{report.settings.batch} images"
    tables = {
        piece: plain_table("model", "prec", "median", "p95", "min", "cpu", "ratio", "cpu ratio", "peak MiB")
        for piece in titles
    }
    for piece, title in titles.items():
        tables[piece].title = f"{title}, milliseconds a call of {call}"
    for row in report.rows:
        wall, memory = row.timing.wall_ms, row.peak_memory_mib
        tables[row.piece].add_row(
            _plain(row.model),
            row.precision,
            *(f"{value:.1f}" for value in (wall.median, wall.p95, wall.minimum, row.timing.cpu_ms.median)),
            f"{row.ratio_wall:.2f}",
            f"{row.ratio_cpu:.2f}",
            "unknown" if memory is None else f"{memory:.0f}",
        )
    return list(tables.values())


def write_json(facts: dict[str, Any], path: Path) -> None:
    """Write the figures; an existing file is replaced in one step."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _plain(text: str) -> Any:
    """Return text whose square brackets are no markup."""
    from rich.text import Text

    return Text(text, overflow="fold")


def plain_table(name: str, *columns: str) -> Table:
    """Return an empty table: a column of names, and further ones set to the right."""
    from rich import box
    from rich.table import Table

    table = Table(name, box=box.SIMPLE, padding=0, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table
