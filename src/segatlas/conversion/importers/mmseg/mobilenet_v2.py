"""MMSegmentation's MobileNetV2: ours that ends with 320 channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.backbones import Backbone
from segatlas.conversion.importers.renames import Renames
from segatlas.encoders.mobilenet_v2 import GROUPS
from segatlas.errors import WeightsError

_SETTINGS = {
    ((1, 2, 2, 2, 1, 2, 1), (1, 1, 1, 1, 1, 1, 1)): 32,
    ((1, 2, 2, 2, 1, 1, 1), (1, 1, 1, 1, 1, 2, 2)): 16,
    ((1, 2, 2, 1, 1, 1, 1), (1, 1, 1, 2, 2, 4, 4)): 8,
}
"""(strides, dilations) of the seven groups -> output stride."""

_LAYERS = {(True, 0): "0.0", (True, 1): "1.0", (True, 2): "2", (False, 0): "0.0", (False, 1): "1"}
"""(the block widens, theirs) -> ours: the convolution in a block. Its norm is the layer after it."""


def recognise(file: ForeignWeights, output_stride: int) -> Mapping[str, Any] | None:
    """See `Backbone`."""
    if not file.has("backbone.conv1.conv", "backbone.layer7.0.conv.2.conv"):
        return None
    blocks = [file.count(f"backbone.layer{group}.{{i}}") for group in range(1, 8)]
    if blocks != [depth for _, _, depth, _ in GROUPS]:
        return None
    if file.shape("backbone.layer7.0.conv.2.conv.weight")[0] != 320:
        raise WeightsError("a MobileNetV2 of another width (widen_factor); the one here has width 1")
    if file.stated("model.backbone") is None:
        file.notes.append(f"output_stride = {output_stride} (published default; the weights do not tell)")
        return {"encoder": "mobilenet_v2_320", "output_stride": output_stride, "encoder_options": {}}
    strides = tuple(file.stated("model.backbone.strides") or (1, 2, 2, 2, 1, 2, 1))
    dilations = tuple(file.stated("model.backbone.dilations") or (1,) * 7)
    if (strides, dilations) not in _SETTINGS:
        raise WeightsError(
            f"a MobileNetV2 with strides {strides} and dilations {dilations}; known are: "
            + "; ".join(f"{known[0]} with {known[1]}" for known in _SETTINGS)
        )
    return {"encoder": "mobilenet_v2_320", "output_stride": _SETTINGS[strides, dilations], "encoder_options": {}}


def renames(encoder: str) -> Renames:
    """See `Backbone`."""
    table = [("backbone.conv1.conv", "encoder.features.0.0"), ("backbone.conv1.bn", "encoder.features.0.1")]
    index = 0
    for group, (widening, _, depth, _) in enumerate(GROUPS, start=1):
        for block in range(depth):
            index += 1
            theirs, ours = f"backbone.layer{group}.{block}.conv", f"encoder.features.{index}.conv"
            for (widens, part), layer in _LAYERS.items():
                if widens == (widening > 1):
                    table += [
                        (f"{theirs}.{part}.conv", f"{ours}.{layer}"),
                        (f"{theirs}.{part}.bn", f"{ours}.{_next(layer)}"),
                    ]
    return table


def _next(layer: str) -> str:
    """Return the name of the layer after one: "1.0" -> "1.1", "2" -> "3"."""
    *outer, last = layer.split(".")
    return ".".join([*outer, str(int(last) + 1)])


BACKBONE = Backbone(module="segatlas.encoders.mobilenet_v2", recognise=recognise, renames=renames)
