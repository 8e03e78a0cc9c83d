"""MMSegmentation's ResNet (7x7 stem, "b"), ResNetV1c (deep stem) and ResNetV1d (and averaging shortcuts)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.backbones import Backbone
from segatlas.conversion.importers.renames import Renames
from segatlas.encoders.resnet import DILATIONS
from segatlas.errors import WeightsError

_DEPTHS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
"""(has bottlenecks, blocks of each layer) -> name."""

_STRIDES = ((1, 2, 2, 2), (1, 2, 2, 1), (1, 2, 1, 1))


def recognise(file: ForeignWeights, output_stride: int) -> Mapping[str, Any] | None:
    """See `Backbone`."""
    if not file.has("backbone.layer1.0.conv1.weight") or file.has("backbone.layer1.0.conv2.fc1"):
        return None
    blocks = tuple(file.count(f"backbone.layer{layer}.{{i}}") for layer in (1, 2, 3, 4))
    name = _DEPTHS.get((file.has("backbone.layer1.0.conv3"), blocks))
    if name is None:
        return None
    if file.has("backbone.stem"):
        name += "d" if file.has("backbone.layer2.0.downsample.2") else "c"
    options: dict[str, Any] = {"basic_conv2_dilated": False}
    output_stride, further = stated_layout(file, output_stride)
    return {"encoder": name, "output_stride": output_stride, "encoder_options": options | further}


def stated_layout(file: ForeignWeights, output_stride: int) -> tuple[int, dict[str, Any]]:
    """Return output stride and encoder options as the settings state them, else `output_stride` and none, with a note.

    Raises:
        WeightsError: they state a form that our ResNet does not have.
    """
    if file.stated("model.backbone") is None:
        file.notes.append(f"output_stride = {output_stride} (published default; the weights do not tell)")
        return output_stride, {}
    given = {key: file.stated(f"model.backbone.{key}") for key in ("strides", "dilations", "multi_grid", "style")}
    strides = tuple(given["strides"] or (1, 2, 2, 2))
    if strides not in _STRIDES:
        raise WeightsError(f"a ResNet with strides {strides}; known are {', '.join(str(known) for known in _STRIDES)}")
    if given["style"] not in (None, "pytorch", "caffe"):
        raise WeightsError(f"a ResNet of style '{given['style']}'; known are 'pytorch' and 'caffe'")
    output_stride = 4 * prod(strides)
    dilations = tuple(given["dilations"] or (1, 1, 1, 1))
    options: dict[str, Any] = {"stride_first": True} if given["style"] == "caffe" else {}
    if dilations != DILATIONS[output_stride]:
        options["dilations"] = dilations
    if given["multi_grid"]:
        options["multi_grid"] = tuple(given["multi_grid"])
    if max(dilations) > 1 and not file.stated("model.backbone.contract_dilation"):
        options["contract_dilation"] = False
    return output_stride, options


def renames(encoder: str) -> Renames:
    """See `Backbone`."""
    deep = encoder.rstrip("cd") != encoder
    stem = [("backbone.stem.7", "encoder.bn1")] if deep else []
    stem += [("backbone.stem.{i}", "encoder.conv1.{i}")] if deep else []
    return [*stem, ("backbone", "encoder")]


BACKBONE = Backbone(module="segatlas.encoders.resnet", recognise=recognise, renames=renames)
