"""`segatlas explain receptive-field` and `field-calculator`: which pixels a value can depend on, and really does."""

from __future__ import annotations

import difflib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from segatlas.cli.common import (
    CommercialOption,
    DebugOption,
    JsonOption,
    OfflineOption,
    human,
    print_json_line,
)
from segatlas.cli.explain_common import OverwriteOption, check_out
from segatlas.errors import UsageError, WeightsError
from segatlas.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table
    from torch import nn

    from segatlas.checkpoint.card import Card
    from segatlas.explain.field_calculator import ChainField
    from segatlas.explain.measured_field import EffectiveField
    from segatlas.explain.theoretical_field import AxisField, FieldReport, LayerField
    from segatlas.structures import InputSpec

MODEL_HELP = "Run, model folder, checkpoint, published name; or NAME or NAME:FIELD=VALUE,... of an architecture."
LAYER_HELP = "Layers to show: names or shell patterns such as 'encoder.*', joined by commas; repeatable."
WITHOUT_HELP = "Layers taken for constants: what remains is the field by the other ways; repeatable."
IMAGES_HELP = "With --effective: image files or folders in place of noise, the middle of each image; repeatable."
SMALL = ("ReLU", "ReLU6", "GELU", "Identity", "Dropout", "Dropout2d", "BatchNorm2d", "SiLU", "Hardswish", "DropPath")
"""Layers that move nothing: left out where no layer was asked for."""

DEPTH, MOST_BARS = 2, 40
MOST_MEASURED = 256
"""Side of the largest image that --effective chooses by itself."""


def receptive_field(
    model: Annotated[str, typer.Argument(help=MODEL_HELP)],
    layer: Annotated[list[str] | None, typer.Option("--layer", help=LAYER_HELP)] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Size of the image; default: as large as the fields need.")
    ] = None,
    without: Annotated[list[str] | None, typer.Option("--without", help=WITHOUT_HELP)] = None,
    effective: Annotated[
        bool,
        typer.Option("--effective", help="Measure by gradients; --layer names the one layer, default: the output."),
    ] = False,
    inputs: Annotated[
        int, typer.Option("--inputs", min=1, help="With --effective: inputs of noise, or as many of --images at most.")
    ] = 8,
    images: Annotated[list[Path] | None, typer.Option("--images", help=IMAGES_HELP)] = None,
    seed: Annotated[int, typer.Option(help="With --effective: of the noise.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Also draw it, a .png file.")] = None,
    overwrite: OverwriteOption = False,
    offline: OfflineOption = False,
    commercial_ok: CommercialOption = False,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Print the receptive field of each layer of a model: size, stride, start; exact on branches, or "not known".

    Without --layer, layers two levels deep are shown. --effective measures how much each pixel moves the value in the
    middle of a layer's map, for noise or --images, and draws the theoretical field over it.
    """
    from segatlas.bench.settings import parse_size
    from segatlas.explain.theoretical_field import receptive_field as find

    asked = None if size is None else parse_size(size)
    if out is not None:
        if out.suffix.lower() != ".png":
            raise UsageError(f"--out: {printable(out)}; expected a .png file")
        check_out(out, overwrite=overwrite)
    patterns, left_out = listed_names(layer), listed_names(without)
    if effective and left_out:
        raise UsageError("--without belongs to theoretical fields; --effective measures the network as it is")
    if images and not effective:
        raise UsageError("--images belongs to --effective: theoretical fields do not depend on images")
    files = image_files(images or ())[:inputs]
    network, card = _network(model, offline=offline, commercial_ok=commercial_ok)
    specs = card.inputs
    console = human(json_line=json_line)
    if effective:
        found = _measured(network, card, patterns, asked, count=inputs, seed=seed, files=files)
        _show_measured(found, out, f"{found.layer or 'output'} of {Path(model).name}", bool(files), json_line=json_line)
        return
    report = find(network, size=asked, inputs=specs, without=left_out)
    shown = chosen(report, patterns, network)
    console.print(f"image of {report.size[0]} x {report.size[1]}; rows and columns in pixels", markup=False)
    console.print(_table(shown))
    for line in remarks(report, shown):
        console.print(line, markup=False)
    if out is not None:
        _draw(shown, out, f"receptive fields of {Path(model).name}")
        console.print(f"written: {printable(out)}", markup=False)
    if json_line:
        facts = report.to_dict()
        facts["layers"] = [one.to_dict() for one in shown]
        print_json_line({**facts, "out": None if out is None else str(out)})


def listed_names(given: Sequence[str] | None) -> list[str]:
    """Return the words of an option that may be repeated, and may hold several joined by commas."""
    return [word.strip() for one in given or () for word in one.split(",") if word.strip()]


def image_files(sources: Sequence[Path]) -> list[Path]:
    """Return the image files that files and folders name, in order. UsageError where one is not there or has none."""
    from segatlas.data.formats.listing import IMAGE_ENDINGS, is_image_name, walk_files

    found = []
    for source in sources:
        if not source.exists():
            raise UsageError(f"--images: {printable(source)}: no such file or folder")
        inside = sorted(file for file in walk_files(source) if is_image_name(file)) if source.is_dir() else [source]
        if not inside:
            raise UsageError(f"--images: no images in {printable(source)} (looked for {' '.join(IMAGE_ENDINGS)})")
        found += inside
    return found


def _network(model: str, *, offline: bool, commercial_ok: bool) -> tuple[nn.Module, Card]:
    """Return a network and its card. One made from a name has random weights, which no field depends on."""
    from segatlas.bench.settings import BenchSettings
    from segatlas.bench.subjects import is_architecture, load_subject
    from segatlas.cli.explain_common import load_model
    from segatlas.models import ARCHITECTURES

    if is_architecture(model.partition(":")[0]):
        subject = load_subject(model, BenchSettings())
        return subject.net, subject.card
    try:
        predictor = load_model(model, device="cpu", offline=offline, commercial_ok=commercial_ok)
    except WeightsError:
        near = difflib.get_close_matches(model.partition(":")[0], list(ARCHITECTURES), n=3)
        if Path(model).exists() or not near:
            raise
        raise UsageError(f"{model}: no such model or architecture; nearest: {', '.join(near)}") from None
    return predictor.model, predictor.card


def chosen(report: FieldReport, patterns: Sequence[str], network: nn.Module) -> tuple[LayerField, ...]:
    """Return the layers to show. UsageError where a pattern fits none."""
    from segatlas.explain.layers import find_layer

    if not patterns:
        return tuple(
            one
            for one in report.layers
            if one.name.count(".") < DEPTH and one.kind not in SMALL and "#" not in one.number
        )
    for pattern in patterns:
        if any(fnmatchcase(one.name, pattern) for one in report.layers):
            continue
        if not any(sign in pattern for sign in "*?["):
            find_layer(network, pattern)
        raise UsageError(f"--layer {pattern}: no layer of that name ran; `segatlas explain layers` lists them")
    return tuple(one for one in report.layers if any(fnmatchcase(one.name, pattern) for pattern in patterns))


def remarks(report: FieldReport, shown: Sequence[LayerField]) -> list[str]:
    """Return what has to be known with the table."""
    lines = []
    axes = [axis for one in shown for axis in (one.rows, one.columns) if axis is not None]
    causes = dict.fromkeys(axis.whole for axis in axes if axis.whole)
    if causes:
        lines.append(f"all: the whole image, taken in by {', '.join(list(causes)[:6])}")
    causes = dict.fromkeys(axis.grows for axis in axes if axis.grows)
    if causes:
        lines.append(f"of this image; a larger one has larger fields, by {', '.join(list(causes)[:6])}")
    if any(axis.cut and not axis.whole for axis in axes):
        lines.append("> n: larger than what the image leaves of it")
    if any(axis.least != axis.size for axis in axes):
        lines.append("a-b: neighbours differ, behind an upsampling")
    unknown = dict.fromkeys(one.unknown for one in shown if one.unknown)
    if unknown:
        lines.append(f"not known: made of what has no rule here: {', '.join(list(unknown)[:6])}")
    if report.stopped:
        lines.append(f"stopped: values decide what comes next, in {report.stopped}; layers after it are not known")
    return lines


def _table(shown: Sequence[LayerField]) -> Table:
    from rich.text import Text

    from segatlas.cli.bench import plain_table

    found = plain_table("layer", "rows", "columns", "stride", "start", "shape")
    for one in shown:
        stride, start = (_pair(one, name) for name in ("stride", "start"))
        sizes = [_size(one.rows), _size(one.columns)]
        found.add_row(Text(one.title, overflow="fold"), *sizes, stride, start, "x".join(map(str, one.shape[1:])))
    return found


def _size(axis: AxisField | None) -> str:
    return "not known" if axis is None else axis.text()


def _pair(one: LayerField, name: str) -> str:
    values = [None if axis is None else getattr(axis, name) for axis in (one.rows, one.columns)]
    texts = ["-" if value is None else f"{float(value):g}" for value in values]
    return texts[0] if texts[0] == texts[1] else " x ".join(texts)


def _draw(shown: Sequence[LayerField], out: Path, title: str) -> None:
    from segatlas.drawing import write_bytes
    from segatlas.drawing.field_plots import FieldBar, field_growth_image

    bars = []
    for one in shown:
        if one.rows is None or one.columns is None:
            continue
        whole = bool(one.rows.whole and one.columns.whole)
        text = "the whole image" if whole else f"{one.rows.text()} x {one.columns.text()}"
        bars.append(FieldBar(name=one.title, size=(one.rows.size, one.columns.size), text=text, whole=whole))
    if not bars:
        raise UsageError("--out: no field is known, so there is nothing to draw")
    if len(bars) > MOST_BARS:
        raise UsageError(
            f"--out: {len(bars)} layers, of which at most {MOST_BARS} can be read; choose some with --layer"
        )
    write_bytes(field_growth_image(bars, title=title), out)


def _measured(
    network: nn.Module,
    card: Card,
    names: Sequence[str],
    size: tuple[int, int] | None,
    *,
    count: int,
    seed: int,
    files: Sequence[Path],
) -> EffectiveField:
    from segatlas.explain.measured_field import effective_field, middle_part, normalised_image

    if len(names) > 1:
        raise UsageError(f"--effective: got {len(names)} layers, expected one")
    name = next(iter(names), "")
    whole = [normalised_image(file, card) for file in files]
    if size is None:
        wanted = _size_for(network, card.inputs, name)
        height, width = (
            min(side, *(one.shape[axis] for one in whole), side) for axis, side in enumerate(wanted, start=1)
        )
        size = height, width
    parts = [middle_part(one, size, printable(file)) for one, file in zip(whole, files, strict=True)]
    return effective_field(network, layer=name, size=size, count=count, seed=seed, images=parts, inputs=card.inputs)


def _show_measured(found: EffectiveField, out: Path | None, what: str, is_own: bool, *, json_line: bool) -> None:
    from segatlas.drawing import write_bytes
    from segatlas.drawing.field_plots import field_heat_image
    from segatlas.explain.measured_field import MASS

    kind = "image" if is_own else "input of noise"
    inputs = f"{found.count} {kind.replace('image', 'images').replace('input', 'inputs') if found.count > 1 else kind}"
    console = human(json_line=json_line)
    for line in _told(found, inputs):
        console.print(line, markup=False)
    if out is not None:
        top, left, bottom, right = found.square
        image = field_heat_image(
            found.gradient,
            box=found.box,
            square=found.square,
            title=f"effective field: {what}, {inputs}",
            square_name=f"{MASS:.0%} of the gradient: {bottom - top} x {right - left}",
        )
        write_bytes(image, out)
        console.print(f"written: {printable(out)}", markup=False)
    if json_line:
        print_json_line({**found.to_dict(), "out": None if out is None else str(out)})


def _size_for(network: nn.Module, specs: Sequence[InputSpec], name: str) -> tuple[int, int]:
    """Return a size of image around a layer's field, at most MOST_MEASURED a side; of what is not known, that."""
    from segatlas.explain.theoretical_field import receptive_field as find

    report = find(network, size=(MOST_MEASURED, MOST_MEASURED), inputs=specs)
    found = [one for one in report.layers if one.name == name]
    sides = []
    for axis in (found[0].rows, found[0].columns) if found else (None, None):
        known = axis is not None and not axis.cut and not axis.grows
        sides.append(
            min(-(-(axis.size + 16) // 32) * 32, MOST_MEASURED) if axis is not None and known else MOST_MEASURED
        )
    return sides[0], sides[1]


def _told(found: EffectiveField, inputs: str) -> list[str]:
    height, width = found.gradient.shape
    top, left, bottom, right = found.square
    row, column = found.unit
    lines = [
        f"value in row {row}, column {column} of {found.layer or 'the output'}, image of {height} x {width}, {inputs}",
        f"95% of the gradient lies in {bottom - top} x {right - left} pixels",
        f"as many pixels as a square of {found.side:.1f} have at least 4.55% of the largest gradient",
    ]
    if found.box is not None:
        top, left, bottom, right = found.box
        lines.append(
            f"theoretical field there: {bottom - top} x {right - left} pixels; that square is {found.of_box:.0%} of it"
        )
    else:
        lines.append("theoretical field there: not known")
    return lines


def field_calculator(
    layers: Annotated[
        list[str], typer.Argument(metavar="KERNEL[,STRIDE[,PADDING[,DILATION]]]...", help="Numbers, or HxW.")
    ],
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Work out the receptive field of layers in a row from their numbers alone.

    What is left out is stride 1, padding 0, dilation 1. Rectangles are HxW: 1x5,1x2,0x2.
    """
    from segatlas.explain.field_calculator import chain_fields, parse_layer

    found = chain_fields([parse_layer(word) for word in layers])
    console = human(json_line=json_line)
    console.print(_chain_table(found))
    if json_line:
        names = ("kernel", "stride", "padding", "dilation", "size", "jump")
        print_json_line(
            [
                {**{name: list(getattr(one, name)) for name in names}, "start": [float(part) for part in one.start]}
                for one in found
            ]
        )


def _chain_table(found: Sequence[ChainField]) -> Table:
    from segatlas.cli.bench import plain_table

    made = plain_table("layer", "kernel", "stride", "padding", "dilation", "field", "jump", "start")
    for number, one in enumerate(found, start=1):
        sides: list[Any] = [one.kernel, one.stride, one.padding, one.dilation, one.size, one.jump]
        made.add_row(str(number), *map(_sides, sides), _sides([f"{float(part):g}" for part in one.start]))
    return made


def _sides(pair: Sequence[Any]) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]} x {pair[1]}"
