"""`segatlas pseudo`: masks to learn from, made by a network that learned classes of whole images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from segatlas.cli import completion
from segatlas.cli.common import (
    CommercialOption,
    DebugOption,
    DeviceOption,
    JsonOption,
    OfflineOption,
    human,
    print_json_line,
)
from segatlas.cli.data_words import load_data
from segatlas.errors import UsageError
from segatlas.printable import printable
from segatlas.safe_console import progress_bar

if TYPE_CHECKING:
    from segatlas.pseudo import Spread


def pseudo(
    model: Annotated[
        str,
        typer.Argument(
            help="Run folder, model folder or checkpoint, trained with image_labels.", autocompletion=completion.models
        ),
    ],
    source: Annotated[str, typer.Argument(metavar="ROOT|RECIPE", help="Data whose train part gets masks.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)] = None,
    out: Annotated[Path, typer.Option("--out", help="The folder to make.")] = Path("pseudo"),
    spread: Annotated[
        str | None,
        typer.Option(
            help="How maps spread: local by colour, walk up to borders, or none; default: walk for a model that has "
            "learned borders (irnet), else local."
        ),
    ] = None,
    foreground: Annotated[float, typer.Option(help="Score from which on a class is sure, 0..1.")] = 0.3,
    background_score: Annotated[float, typer.Option("--background", help="Score below which nothing is there.")] = 0.05,
    background_class: Annotated[
        str | None, typer.Option(help="Class of everything else, or 'none'; default: one that is called so.")
    ] = None,
    scales: Annotated[str, typer.Option(help="Sizes of the image that are looked at.")] = "1,0.5,1.5,2",
    flip: Annotated[bool, typer.Option(help="Look at mirror images, too.")] = True,
    device: DeviceOption = "auto",
    offline: OfflineOption = False,
    commercial_ok: CommercialOption = False,
    json_line: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Make masks from activation maps of a network that learned which classes images show.

    What is not sure is 255. The folder has masks of train made so, those of val and test as they are: train on it next.
    """
    from segatlas.inference import load
    from segatlas.pseudo import PseudoRule, learns_edges, write_pseudo_masks

    rule = PseudoRule(
        spread=cast("Spread", spread or "local"),
        foreground=foreground,
        background=background_score,
        scales=_numbers(scales),
        flip=flip,
    )
    cfg = load_data([source, *(words or [])])
    predictor = load(model, device=device, offline=offline, commercial_ok=commercial_ok)
    if spread is None and learns_edges(predictor):
        rule = replace(rule, spread="walk")
    console = human(json_line=json_line)
    with progress_bar("making masks") as bar:
        counts = write_pseudo_masks(predictor, cfg.data, out, rule, background=background_class, progress=bar.report)
    labelled = counts.pop("labelled")
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    console.print(f"{told}; {labelled:.1%} of train's pixels have a class -> {printable(out)}", markup=False)
    console.print(f"next: segatlas train unet_folder data.root={printable(out)}", markup=False)
    if json_line:
        print_json_line({"out": str(out), "spread": rule.spread, **counts, "labelled": labelled})


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--scales: got {text!r}, expected numbers with commas between them") from None
