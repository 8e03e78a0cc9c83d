"""`segatlas explain probability` and `entropy`: how probable each class is at each pixel, and how sure the model is."""

from __future__ import annotations

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


def probability(
    model: ModelArgument,
    image: ImageArgument,
    out: OutOption,
    class_names: ClassOption = None,
    every: Annotated[bool, typer.Option("--all", help="All classes of the model.")] = False,
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
    """Draw the probability of classes at each pixel, a map a class; without --class the six of the highest mean."""
    check_image(image)
    sources = read_aux(aux)
    check_out(out, overwrite=overwrite)
    predictor = load_model(model, device=device, offline=offline, commercial_ok=commercial_ok, score=score)
    sources = named_aux(sources, predictor.card.inputs)

    from segatlas.explain import probability_figure, probability_maps
    from segatlas.explain.probabilities import MOST_SHOWN
    from segatlas.explain.seeing import SeenImage

    most = None if every else MOST_SHOWN
    maps = probability_maps(predictor, str(image), class_names or (), most, sources)
    view = SeenImage.of(predictor, str(image), sources).view
    figure = probability_figure(view, maps, predictor.card.palette)
    means = {name: round(float(maps.means[kind]), 6) for kind, name in zip(maps.classes, maps.names, strict=True)}
    write_figure(figure, out, json_line=json_line, quiet=quiet, means=means)


def entropy(
    model: ModelArgument,
    image: ImageArgument,
    out: OutOption,
    aux: AuxOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
    offline: OfflineOption = False,
    commercial_ok: CommercialOption = False,
    json_line: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw how undecided the model is at each pixel: the entropy of its probabilities, 0 sure, 1 all classes equal."""
    check_image(image)
    sources = read_aux(aux)
    check_out(out, overwrite=overwrite)
    predictor = load_model(model, device=device, offline=offline, commercial_ok=commercial_ok)
    sources = named_aux(sources, predictor.card.inputs)

    from segatlas.explain import entropy_figure, entropy_map
    from segatlas.explain.seeing import SeenImage

    values = entropy_map(predictor, str(image), sources)
    view = SeenImage.of(predictor, str(image), sources).view
    facts = {"mean": round(float(values.mean()), 6), "highest": round(float(values.max()), 6)}
    write_figure(entropy_figure(view, values), out, json_line=json_line, quiet=quiet, **facts)
