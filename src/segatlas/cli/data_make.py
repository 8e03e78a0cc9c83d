"""`segatlas data make-…`: generated datasets, and prior masks that a model predicts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from segatlas.cli import completion
from segatlas.cli.common import DebugOption, DeviceOption, JsonOption, QuietOption, human, print_json_line
from segatlas.cores import visible_cores
from segatlas.errors import UsageError
from segatlas.printable import printable

OutArgument = Annotated[Path, typer.Argument(help="The folder to make.")]
SizeOption = Annotated[str, typer.Option(metavar="HxW", help="Size of every image.")]
SeedOption = Annotated[int, typer.Option(min=0, help="What all scenes follow from.")]
MANY = 300
"""Scenes from which on several processes draw; to start one takes as long as some fifty scenes."""


def make_shapes(
    out: OutArgument,
    train: Annotated[int, typer.Option(min=1, help="Images in train.")] = 64,
    val: Annotated[int, typer.Option(min=0, help="Images in val.")] = 16,
    test: Annotated[int, typer.Option(min=0, help="Images in test.")] = 16,
    size: SizeOption = "128x160",
    seed: SeedOption = 0,
    objects: Annotated[str, typer.Option(metavar="A-B", help="Objects in an image, from A to B.")] = "4-8",
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw a dataset of textured shapes with labels for all three tasks; the same seed gives the same images."""
    from segatlas.data import shapes

    processes = min(visible_cores(), 8) if train + val + test >= MANY else 1
    shapes.make_shapes(
        out, train=train, val=val, test=test, size=_size(size), seed=seed, objects=_range(objects), processes=processes
    )
    counts = {"train": train, "val": val, "test": test}
    _tell(out, counts, f"images of {size} pixels", "train unet_shapes data.root=", seed, json_line=json_line)


def make_pairs(
    out: OutArgument,
    train: Annotated[int, typer.Option(min=1, help="Images in train.")] = 1000,
    val: Annotated[int, typer.Option(min=0, help="Images in val.")] = 200,
    test: Annotated[int, typer.Option(min=0, help="Images in test.")] = 200,
    size: SizeOption = "128x128",
    seed: SeedOption = 0,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw a dataset of noisy, half-hidden shapes, each with a prior mask that is bent and may lack a class."""
    from segatlas.data import prior_scenes

    prior_scenes.make_pairs(out, train=train, val=val, test=test, size=_size(size), seed=seed)
    counts = {"train": train, "val": val, "test": test}
    _tell(out, counts, f"pairs of {size} pixels", "data preview ", seed, json_line=json_line)


def _tell(out: Path, counts: dict[str, int], what: str, command: str, seed: int, *, json_line: bool) -> None:
    """Say what was made, and the command to go on with; `out` stands behind it."""
    console = human(json_line=json_line)
    made = ", ".join(f"{count} {split}" for split, count in counts.items())
    console.print(f"{made} {what} -> {printable(out)}", markup=False)
    console.print(f"next: segatlas {command}{printable(out)}", markup=False)
    if json_line:
        print_json_line({"out": str(out), **counts, "seed": seed})


def make_priors(
    model: Annotated[
        str,
        typer.Argument(
            help="Run folder, model folder, checkpoint, published name or hub id.", autocompletion=completion.models
        ),
    ],
    out: OutArgument,
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="A recipe (.yaml or shipped name) or a data folder; default: the run's own."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, val or test only.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images of one size per pass.")] = 1,
    device: DeviceOption = "auto",
    json_line: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Predict every image of a dataset and write OUT/SPLIT/KEY.png: prior masks for a network of several sources.

    Of images that the model was trained on, priors are better than they will be of others.
    """
    from segatlas.evaluation.priors import write_priors

    splits = () if split is None else (split,)
    counts = write_priors(
        model, out, data, overrides=words or (), splits=splits, batch=batch, device=device, progress=not quiet
    )
    if not quiet:
        told = ", ".join(f"{count} {name}" for name, count in counts.items())
        human(json_line=json_line).print(f"{told} masks -> {printable(out)}", markup=False)
    if json_line:
        print_json_line({"out": str(out), **counts})


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise UsageError(f"--size: got {text!r}, expected HxW such as 128x160")
    return int(match[1]), int(match[2])


def _range(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", text)
    if match is None:
        raise UsageError(f"--objects: got {text!r}, expected a number or A-B such as 4-8")
    return int(match[1]), int(match[2] or match[1])
