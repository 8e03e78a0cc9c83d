"""`segatlas explain heatmap`: which places of an image speak for a class, by Grad-CAM at a layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segatlas.cli.common import (
    CommercialOption,
    DebugOption,
    DeviceOption,
    JsonOption,
    OfflineOption,
    QuietOption,
    named_aux,
)
from segatlas.cli.explain_common import (
    AuxOption,
    ClassOption,
    ImageArgument,
    ModelArgument,
    OutOption,
    OverwriteOption,
    ScoreOption,
    check_image,
    check_out,
    load_model,
    read_aux,
    write_figure,
)
from segatlas.errors import UsageError

REGIONS = ("predicted", "image")
STYLES = ("overlay", "beside")

LayerOption = Annotated[
    str | None,
    typer.Option("--layer", help="A layer by name (`explain layers` lists them); default: the encoder's last."),
]
RegionOption = Annotated[
    str | None,
    typer.Option(help="Sum the logits over: predicted, the pixels of the class (default), or image, all of it."),
]
BoxOption = Annotated[str, typer.Option(metavar="TOP,LEFT,BOTTOM,RIGHT", help="Sum them over a box, in pixels.")]
MaskOption = Annotated[Path | None, typer.Option(help="Sum them over the pixels of a mask file that are not 0.")]
StyleOption = Annotated[str, typer.Option(help="overlay, or beside: image, heat and overlay of each class in a row.")]


def heatmap(
    model: ModelArgument,
    image: ImageArgument,
    out: OutOption,
    layer: LayerOption = None,
    class_names: ClassOption = None,
    region: RegionOption = None,
    box: BoxOption = "",
    mask: MaskOption = None,
    style: StyleOption = "overlay",
    aux: AuxOption = None,
    score: ScoreOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
    offline: OfflineOption = False,
    commercial_ok: CommercialOption = False,
    json_line: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw heat maps of classes over an image: Grad-CAM of the class's logits, summed over a region, at a layer.

    Without --class, those of the classes that the model predicts, up to six.
    """
    where = chosen_region(region, box, mask)
    if style not in STYLES:
        raise UsageError(f"--style: got {style!r}, expected {' or '.join(STYLES)}")
    check_image(image)
    sources = read_aux(aux)
    check_out(out, overwrite=overwrite)
    predictor = load_model(model, device=device, offline=offline, commercial_ok=commercial_ok, score=score)
    sources = named_aux(sources, predictor.card.inputs)

    from segatlas.explain import heat_map_figure, heat_maps
    from segatlas.explain.seeing import SeenImage

    maps = heat_maps(predictor, str(image), layer, class_names or (), where, sources)
    view = SeenImage.of(predictor, str(image), sources).view
    figure = heat_map_figure(view, maps, "overlay" if style == "overlay" else "beside")
    facts = [
        {"class": one.class_name, "target": one.target, "strength": one.strength, "note": one.note} for one in maps
    ]
    write_figure(figure, out, json_line=json_line, quiet=quiet, layer=maps[0].layer, region=maps[0].region, maps=facts)


def chosen_region(
    region: str | None, box: str, mask: Path | None, words: tuple[str, ...] = REGIONS
) -> str | Path | tuple[int, int, int, int]:
    """Return what --region, --box and --mask mean. UsageError where several are given, or one is none.

    words: that --region may be, the first one where nothing is given.
    """
    given = [name for name, value in (("--region", region), ("--box", box), ("--mask", mask)) if value]
    if len(given) > 1:
        raise UsageError(f"give one of {' and '.join(given)}")
    if mask is not None:
        if not mask.is_file():
            raise UsageError(f"--mask {mask}: {'is a folder, expected a file' if mask.is_dir() else 'no such file'}")
        return mask
    if box:
        sides = [part.strip() for part in box.split(",")]
        if len(sides) != 4 or not all(part.lstrip("-").isdecimal() for part in sides):
            raise UsageError(f"--box: got {box!r}, expected four whole numbers TOP,LEFT,BOTTOM,RIGHT")
        top, left, bottom, right = map(int, sides)
        return top, left, bottom, right
    if region not in (None, *words):
        raise UsageError(f"--region: got {region!r}, expected {' or '.join(words)}; --box and --mask say others")
    return region or words[0]
