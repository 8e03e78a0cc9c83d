"""`segatlas explain boundary`: segmentation and boundary maps of images, from a model or from label files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from segatlas.cli.explain_common import (
    MODEL_HELP,
    OverwriteOption,
    ScoreOption,
    check_image,
    check_out,
    load_model,
    write_figure,
)
from segatlas.errors import UsageError
from segatlas.files import require_writable
from segatlas.printable import printable

if TYPE_CHECKING:
    from segatlas.explain.maps import Kind

KINDS = ("image", "map", "overlay", "boundary", "colored")

WordsArgument = Annotated[
    list[str],
    typer.Argument(metavar="[MODEL] IMAGE...", help=f"MODEL: {MODEL_HELP} Left out with --labels, --objects."),
]
FileOrFolderOption = Annotated[
    Path, typer.Option("--out", help="An image file for one sheet; a folder for a file of each map in its own size.")
]
LabelsOption = Annotated[
    Path | None, typer.Option("--labels", help="A mask of class indices of the one IMAGE, in place of MODEL.")
]
ObjectsOption = Annotated[
    Path | None,
    typer.Option(
        "--objects", help="A map of its objects, class * 1000 + n or numbers with a table, in place of MODEL."
    ),
]
ClassesOption = Annotated[
    str | None, typer.Option("--classes", help="Names of classes of label files: a dataset's, classes.json or .txt.")
]
PaletteOption = Annotated[
    str | None,
    typer.Option(help="Colours: default, voc, a dataset such as cityscapes, or a file; without it the model's own."),
]
ShowOption = Annotated[str, typer.Option("--show", help=f"What to draw, of {','.join(KINDS)}.")]
LegendOption = Annotated[bool, typer.Option("--legend", help="A legend below each map that goes into a folder.")]


def boundary(
    words: WordsArgument,
    out: FileOrFolderOption,
    labels: LabelsOption = None,
    objects: ObjectsOption = None,
    classes: ClassesOption = None,
    palette: PaletteOption = None,
    show: ShowOption = "image,map,overlay,boundary,colored",
    legend: LegendOption = False,
    score: ScoreOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
    offline: OfflineOption = False,
    commercial_ok: CommercialOption = False,
    json_line: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw segmentations and boundaries of images in any palette; `colored`: those of objects in their class's colour.

    Of a model, or with --labels or --objects of a file.
    """
    kinds = read_kinds(show)
    model, images = split_words(words, of_files=labels is not None or objects is not None)
    if labels is not None and objects is not None:
        raise UsageError("give --labels or --objects, not both")
    if model is not None and classes is not None:
        raise UsageError("--classes names the classes of --labels and --objects; a model has its own")
    for image in images:
        check_image(image)
    in_folder = out.is_dir() or not out.suffix
    targets = plan_maps(images, kinds, out, overwrite=overwrite) if in_folder else {}
    if not in_folder:
        check_out(out, overwrite=overwrite)

    from segatlas.explain import Labels, find_palette, map_figure
    from segatlas.explain.maps import drawn_map

    if model is None:
        from segatlas.data.formats.images import read_image
        from segatlas.drawing import viewable

        view = viewable(read_image(images[0]))
        found = [Labels.read(view, labels, objects, classes, palette or "default")]
    else:
        predictor = load_model(model, device=device, offline=offline, commercial_ok=commercial_ok, score=score)
        colors = None if palette is None else find_palette(palette, len(predictor.card.classes))
        found = [Labels.of(predictor.predict(str(image)), colors) for image in images]
    if not in_folder:
        figure = map_figure(found, kinds, [image.name for image in images])
        write_figure(figure, out, json_line=json_line, quiet=quiet, images=len(images))
        return
    from segatlas.drawing import save_image

    for (row, kind), target in targets.items():
        save_image(drawn_map(found[row], kind, legend=legend), target)
    if not quiet:
        human(json_line=json_line).print(f"{len(targets)} maps -> {printable(out)}", markup=False)
    if json_line:
        print_json_line({"out": str(out), "files": [str(target) for target in targets.values()]})


def read_kinds(text: str) -> tuple[Kind, ...]:
    """Return the maps that --show names. UsageError for an unknown one, or none."""
    from segatlas.config.messages import unknown

    kinds = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"--show: got {kind!r}: {unknown('map', kind, KINDS)}; there are {','.join(KINDS)}")
    if not kinds:
        raise UsageError(f"--show: nothing to draw; there are {','.join(KINDS)}")
    return kinds  # type: ignore[return-value]


def split_words(words: Sequence[str], *, of_files: bool) -> tuple[str | None, list[Path]]:
    """Return the model, None with label files, and the images. UsageError where one is missing."""
    if of_files:
        if len(words) != 1:
            raise UsageError(
                f"--labels and --objects belong to one image, and no model is named; got {len(words)} words"
            )
        return None, [Path(words[0])]
    if len(words) < 2:
        raise UsageError("give MODEL and IMAGE, or IMAGE with --labels FILE or --objects FILE")
    return words[0], [Path(word) for word in words[1:]]


def plan_maps(
    images: Sequence[Path], kinds: Sequence[Kind], out: Path, *, overwrite: bool
) -> dict[tuple[int, Kind], Path]:
    """Return the file of each map: STEM_KIND.png in the folder.

    Raises:
        UsageError: two images of one stem, files that are there, a folder that cannot be written.
    """
    stems = [image.stem for image in images]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise UsageError(f"two images are called {twice}: their maps would be one file")
    targets = {(row, kind): out / f"{stem}_{kind}.png" for row, stem in enumerate(stems) for kind in kinds}
    there = next((target for target in targets.values() if target.exists()), None)
    if there is not None and not overwrite:
        raise UsageError(f"--out: {printable(there)} is there already; --overwrite replaces it")
    require_writable(out, error=UsageError)
    return targets
