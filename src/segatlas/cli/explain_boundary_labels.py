"""`segatlas explain boundary-labels`: label files become files of boundaries, each pixel with its class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segatlas.cli.common import DebugOption, JsonOption, QuietOption, human, print_json_line
from segatlas.printable import printable


def boundary_labels(
    sources: Annotated[list[str], typer.Argument(metavar="MASK|FOLDER...", help="Label files, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the new masks, PNG with a colour a class.")],
    width: Annotated[int, typer.Option(help="Pixels on each side of a boundary.")] = 2,
    rest: Annotated[
        str, typer.Option("--rest", metavar="none|ignore|N", help="Other pixels: a class behind the last, 255, or N.")
    ] = "none",
    ignore: Annotated[int, typer.Option(help="The code in the files that means no label.")] = 255,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
    json_line: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Write multi-class boundary labels: a pixel near another class keeps its code, the others are "none" or ignored.

    Borders to pixels without a label are no boundaries. In a training, transforms.boundary_labels.width does the same,
    and the loss class_boundary compares them with the network's own.
    """
    from segatlas.explain.boundary_files import write_boundary_labels

    written = write_boundary_labels(sources, out, width=width, rest=rest, ignore=ignore, overwrite=overwrite)
    if not quiet:
        other = f"pixels of no boundary are {written.rest}"
        console = human(json_line=json_line)
        console.print(
            f"{printable(out)}: {len(written.files)} masks, boundaries {width} wide a side; {other}", markup=False
        )
    if json_line:
        facts = {"out": str(out), "width": width, "rest": written.rest, "boundary_fraction": written.fraction}
        print_json_line({**facts, "files": [str(file) for file in written.files]})
