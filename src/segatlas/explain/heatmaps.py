"""Grad-CAM for segmentation: which places of a layer speak for a class.

Selvaraju et al., "Grad-CAM", ICCV 2017; Vinogradova, Dibrov and Myers, "Towards Interpretable Semantic Segmentation via
Gradient-weighted Class Activation Mapping", AAAI 2020. The target is the class's logits summed over a region; a channel
of the layer weighs the mean of the target's gradient over it; the heat is the weighted sum of the channels, what is
below 0 is 0, upsampled to the image. What a class's logits are for each kind of network: `class_logits`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from segatlas.drawing import Cell, gallery, heat_image, heat_overlay, with_color_bar
from segatlas.errors import DataError, UsageError
from segatlas.explain.activations import Recorded, placement_of, recorded, usual_layers
from segatlas.explain.choosing import (
    ChosenRegion,
    Region,
    find_classes,
    find_region,
    predicted_classes,
    predicted_pixels,
)
from segatlas.explain.class_logits import OutputFrame, summed_logits
from segatlas.explain.layers import find_layer
from segatlas.explain.seeing import SeenImage
from segatlas.inference import Predictor
from segatlas.inference.images import GivenImage, ImageLike
from segatlas.ops import upsample_logits
from segatlas.structures import Output, with_maps

Style = Literal["overlay", "beside"]

INDEPENDENT = "its logits do not depend on this layer"
"""Note of a map without heat, where other classes of the same call have some; where none has, it is an error."""

_ONE_AT_A_TIME = threading.Lock()
"""While a layer is recorded the network's weights take no gradients: two explanations at once would meet in that."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeatMap:
    """What Grad-CAM gives for a class.

    heat: (H, W) float32 in the image's size, 0..1, its largest value 1; all 0 where nothing speaks for the class.
    class_index, class_name: the class. layer: its name. region: what the logits were summed over, in words. target:
    that sum. strength: the largest value before it was made 1. note: what is to be known about it, "" = nothing.
    """

    heat: np.ndarray = field(repr=False)
    class_index: int
    class_name: str
    layer: str
    region: str
    target: float
    strength: float
    note: str = ""


def heat_maps(
    predictor: Predictor,
    image: GivenImage,
    layer: str | None = None,
    classes: Sequence[str | int] = (),
    region: Region = "predicted",
    sources: Mapping[str, ImageLike] | None = None,
) -> list[HeatMap]:
    """Return Grad-CAM of a layer for classes of an image: one pass of the network, one of gradients a class.

    The whole image goes through the network at once, also where the model predicts by windows. The network runs in
    fp32, as it was published.

    Args:
        predictor: from `segatlas.load`.
        image: as `Predictor.predict` takes it.
        layer: a name of `explain.layer_names`; None = the encoder's last layer.
        classes: names or indices; () = those that are predicted, up to six, that of most pixels first.
        region: over which the class's logits are summed, see `explain.Region`.
        sources: further inputs of the model.

    Raises:
        UsageError: no such layer or class, a region outside of the image, a layer that does not run, that gives no map,
            or of which no logits depend; a class that is predicted nowhere where the region is "predicted".
        DataError: an image or a mask that cannot be used; outputs that are no numbers.
        TaskError: the network has no logits of the class.
    """
    network = predictor.model
    names = usual_layers(network) if layer is None else [layer]
    find_layer(network, names[0])
    kinds = find_classes(classes, predictor.card.classes)
    seen = SeenImage.of(predictor, image, sources)
    where = find_region(region, seen.size)
    inside = _regions(seen, kinds, where)
    for name in names:
        with _ONE_AT_A_TIME, torch.enable_grad(), recorded(network, find_layer(network, name), name) as found:
            output = _run(seen)
            if found.outputs:
                maps = [_heat_map(seen, output, found, name, kind, where, part) for kind, part in inside.items()]
                if all(one.note == INDEPENDENT for one in maps):
                    told = ", ".join(repr(one.class_name) for one in maps)
                    raise UsageError(
                        f"layer: the logits of {told} have no gradient at {name}: they do not depend on it, or by "
                        "whole numbers alone; take another layer"
                    )
                return maps
    raise UsageError(f"layer: {names[0]} does not run when the model predicts; take another one")


def heat_map(
    predictor: Predictor,
    image: GivenImage,
    class_name: str | int,
    layer: str | None = None,
    region: Region = "predicted",
    sources: Mapping[str, ImageLike] | None = None,
) -> HeatMap:
    """Return Grad-CAM of a layer for one class; see `heat_maps`."""
    return heat_maps(predictor, image, layer, [class_name], region, sources)[0]


def heat_map_figure(image: np.ndarray, maps: Sequence[HeatMap], style: Style = "overlay") -> np.ndarray:
    """Return one sheet of heat maps, (H', W', 3) uint8, with a bar that says what colours mean.

    Args:
        image: (H, W, 3) uint8 RGB, as `Segmentation.image`.
        maps: of one image, at least one.
        style: "overlay": the image, then the heat of each class over it. "beside": a row for each class, the image, the
            heat alone and the heat over the image side by side.
    """
    cells = [Cell(image=image, title="image")] if style == "overlay" else []
    for one in maps:
        note = one.note or f"over {one.region}"
        over = Cell(image=heat_overlay(image, one.heat), title=one.class_name, note=note)
        alone = Cell(image=heat_image(one.heat, "turbo"), title=f"{one.class_name}, heat alone", note=note)
        cells += [over] if style == "overlay" else [Cell(image=image, title="image"), alone, over]
    sheet = gallery(cells, columns=None if style == "overlay" else 3)
    title = f"Grad-CAM at {maps[0].layer}"
    return with_color_bar(sheet, "turbo", low="nothing", high="most of the class", title=title)


def _regions(seen: SeenImage, kinds: Sequence[int], where: ChosenRegion) -> dict[int, np.ndarray]:
    """Return the pixels that the logits of each class are summed over; UsageError where there are none."""
    if kinds and where.inside is not None:
        return dict.fromkeys(kinds, where.inside)
    result = seen.predicted()
    wanted = kinds or predicted_classes(result)
    if where.inside is not None:
        return dict.fromkeys(wanted, where.inside)
    found = {kind: predicted_pixels(result, kind, seen.size) for kind in wanted}
    for kind, inside in found.items():
        if not inside.any():
            names = seen.predictor.card.classes
            told = ", ".join(names[one] for one in predicted_classes(result))
            raise UsageError(
                f"class {names[kind]!r} is predicted nowhere in this image (it has {told}); region image sums over all "
                "of it, or give a box or a mask"
            )
    return found


def _run(seen: SeenImage) -> Output:
    """Run the network itself, in fp32, on the whole image."""
    inputs, device = seen.inputs(), seen.predictor.device
    try:
        with torch.autocast(device.type, enabled=False):
            output: Output = seen.predictor.model(inputs)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        height, width = seen.crop
        raise DataError(
            f"not enough memory for the gradients of an image of {width} x {height} pixels; make it smaller, or take a "
            "later layer",
            seen.prepared.source or None,
        ) from error
    return with_maps(output, Tensor.float)


def _heat_map(
    seen: SeenImage, output: Output, found: Recorded, name: str, kind: int, where: ChosenRegion, inside: np.ndarray
) -> HeatMap:
    predictor = seen.predictor
    card, device = predictor.card, predictor.device
    frame = OutputFrame(size=seen.size, crop=seen.crop, things=card.things, rule=predictor.rule)
    target = summed_logits(output, kind, torch.from_numpy(inside).to(device), frame)
    if not bool(target.isfinite()):
        raise seen.not_finite("logits")
    heat = np.zeros(seen.size, np.float32)
    strength, note = 0.0, ""
    if not target.requires_grad and not _has_objects(target):
        note = "no object of it is found there"
    else:
        gradients = _gradients(target, found)
        heat = _cam(seen, output, found, gradients, name)
        strength = float(heat.max())
        if not gradients:
            note = INDEPENDENT
        elif strength > 0:
            heat /= strength
        elif all(not bool(one.any()) for one in gradients):
            note = "the gradient is 0 everywhere: nothing to see"
        else:
            note = "nothing speaks for it at this layer"
    return HeatMap(
        heat=heat,
        class_index=kind,
        class_name=card.classes[kind],
        layer=name,
        region=where.name,
        target=float(target.detach()),
        strength=strength,
        note=note,
    )


def _has_objects(target: Tensor) -> bool:
    """Tell whether a sum is one of logits: that of no object at all is exactly 0 and hangs on nothing."""
    return bool(target.detach() != 0)


def _gradients(target: Tensor, found: Recorded) -> list[Tensor]:
    """Return the gradient of the target at each output of a layer; none where it depends on none of them."""
    if not target.requires_grad:
        return []
    given = torch.autograd.grad(target, found.outputs, retain_graph=True, allow_unused=True)
    if all(one is None for one in given):
        return []
    return [torch.zeros_like(out) if one is None else one for out, one in zip(found.outputs, given, strict=True)]


def _cam(seen: SeenImage, output: Output, found: Recorded, gradients: Sequence[Tensor], name: str) -> np.ndarray:
    """Return the heat (H, W) before it is scaled; of a layer that runs several times, the sum of its heats."""
    network = seen.predictor.model
    layer = find_layer(network, name)
    total = torch.zeros(seen.size)
    for values, gradient in zip(found.outputs, gradients, strict=False):  # without gradients there is no heat
        place = placement_of(tuple(values.shape), network, layer, name, output)
        maps, slopes = place.as_map(values.detach().float()), place.as_map(gradient.float())
        heat = torch.einsum("c,chw->hw", slopes.mean(dim=(1, 2)), maps).relu()
        whole = upsample_logits(heat[None, None], seen.size, canvas=place.covered, crop=seen.crop)
        total += whole[0, 0].cpu()
    if not bool(total.isfinite().all()):
        raise seen.not_finite("gradients")
    return total.numpy()
