"""`segatlas data weaken`: weak labels made of whole ones; `segatlas data grabcut`: masks made of boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from segatlas.cli.common import DebugOption, JsonOption, human, print_json_line
from segatlas.cli.data_words import load_data
from segatlas.errors import UsageError
from segatlas.printable import printable
from segatlas.safe_console import progress_bar

FORMS = ("scribbles", "points", "boxes", "labels", "partial")


def weaken(
    source: Annotated[str, typer.Argument(metavar="ROOT|RECIPE", help="A data folder, or a recipe.")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)] = None,
    to: Annotated[str, typer.Option("--to", help=f"{', '.join(FORMS)}.")] = "scribbles",
    seed: Annotated[int, typer.Option(min=0, help="What all draws follow from.")] = 0,
    background: Annotated[
        str | None, typer.Option(help="Class of everything else, or 'none'; default: one that is called so.")
    ] = None,
    width: Annotated[int, typer.Option(min=1, max=1000, help="Of scribbles, in pixels.")] = 5,
    smallest: Annotated[int, typer.Option(min=1, help="Pixels of a region from which on it is labelled.")] = 30,
    fraction: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Of the classes that an image of --to partial has.")
    ] = 0.5,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make weak labels of whole ones: train gets scribbles, points, boxes, classes of images, or masks of some classes.

    Val and test are copied with their masks, so that what weak labels teach can be scored. `data.name=weak` reads it.
    """
    from segatlas.data.weaken import Form, Weakening
    from segatlas.data.weaken import weaken as write

    if to not in FORMS:
        raise UsageError(f"--to: got {to!r}, expected {', '.join(FORMS)}")
    cfg = load_data([source, *(words or [])])
    how = Weakening(
        form=cast("Form", to), seed=seed, width=width, smallest=smallest, fraction=fraction, background=background
    )  # fmt: skip
    console = human(json_line=json_line)
    with progress_bar("writing") as bar:
        counts = write(cfg.data, out, how, bar.report)
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    console.print(f"{told} -> {printable(out)}", markup=False)
    console.print(f"next: segatlas data check {printable(out)}", markup=False)
    if json_line:
        print_json_line({"out": str(out), "to": to, "seed": seed, **counts})


def grabcut(
    source: Annotated[str, typer.Argument(metavar="ROOT|RECIPE", help="Data whose train part has boxes.")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)] = None,
    background: Annotated[
        str | None, typer.Option(help="Class of everything else, or 'none'; default: one that is called so.")
    ] = None,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make masks of boxes by GrabCut; what it is not sure of is 255. Val and test are copied with their masks."""
    from segatlas.data.box_masks import masks_of_boxes

    cfg = load_data([source, *(words or [])])
    console = human(json_line=json_line)
    with progress_bar("cutting") as bar:
        counts = masks_of_boxes(cfg.data, out, background=background, progress=bar.report)
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    console.print(f"{told} -> {printable(out)}", markup=False)
    console.print(f"next: segatlas train unet_folder data.root={printable(out)}", markup=False)
    if json_line:
        print_json_line({"out": str(out), **counts})
