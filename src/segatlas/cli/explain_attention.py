"""`segatlas explain attention`: what a small object attends to in a network with AFMA, and what attends to it."""

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
    ImageArgument,
    ModelArgument,
    OutOption,
    OverwriteOption,
    check_image,
    check_out,
    load_model,
    read_aux,
    write_figure,
)
from segatlas.cli.explain_heatmap import chosen_region

REGIONS = ("smallest", "predicted", "image")

ClassOption = Annotated[
    str | None, typer.Option("--class", metavar="NAME", help="The class, by name or number; default: the region's.")
]
RegionOption = Annotated[
    str | None,
    typer.Option(
        help="Whose patches: smallest, the smallest predicted piece (default), predicted, all of the class, image."
    ),
]
BoxOption = Annotated[str, typer.Option(metavar="TOP,LEFT,BOTTOM,RIGHT", help="Or those of a box, in pixels.")]
MaskOption = Annotated[Path | None, typer.Option(help="Or of the pixels of a mask file that are not 0.")]


def attention(
    model: ModelArgument,
    image: ImageArgument,
    out: OutOption,
    class_name: ClassOption = None,
    region: RegionOption = None,
    box: BoxOption = "",
    mask: MaskOption = None,
    aux: AuxOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
    offline: OfflineOption = False,
    commercial_ok: CommercialOption = False,
    json_line: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw which patches a small object attends to, and which attend to it, in a network with AFMA."""
    where = chosen_region(region, box, mask, REGIONS)
    check_image(image)
    sources = read_aux(aux)
    check_out(out, overwrite=overwrite)
    predictor = load_model(model, device=device, offline=offline, commercial_ok=commercial_ok)
    sources = named_aux(sources, predictor.card.inputs)

    from segatlas.explain import attention_figure, attention_map
    from segatlas.explain.seeing import SeenImage

    found = attention_map(predictor, str(image), class_name, where, sources)
    figure = attention_figure(SeenImage.of(predictor, str(image), sources).view, found)
    facts = {
        "class": found.class_name,
        "region": found.region_name,
        "pixels": int(found.region.sum()),
        "on_class": round(found.on_class, 6),
    }
    write_figure(figure, out, json_line=json_line, quiet=quiet, **facts)
