"""Encoders of segmentation-models-pytorch that are ours, under the same names below `encoder`.

They are torchvision's names for ResNet and MobileNetV2, and the authors' for Mix Transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mit import authors_mit_name
from segatlas.conversion.importers.renames import Renames
from segatlas.errors import WeightsError

_DEPTHS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
"""(has bottlenecks, blocks of each layer) -> name."""

ENCODER: Renames = (("encoder", "encoder"),)

_NAMES = (*_DEPTHS.values(), "mobilenet_v2", *(f"mit_b{size}" for size in range(6)))


def dilated_encoder_fields(file: ForeignWeights, output_stride: int) -> Mapping[str, Any] | None:
    """Return the config fields `encoder`, `output_stride` and `encoder_options`, None where the encoder is not ours.

    Args:
        file: the weights.
        output_stride: what to assume where settings do not tell.
    """
    name = encoder_name(file)
    if name is None or name.startswith("mit_"):
        return None
    stride = file.setting("encoder_output_stride", output_stride)
    # Below stride 32 this library dilates every 3x3 convolution of a stage, from its first block on.
    option = {"dilate_every_block": True} if name == "mobilenet_v2" else {"contract_dilation": False}
    return {"encoder": name, "output_stride": stride, "encoder_options": option}


def encoder_renames(encoder: str | None) -> Renames:
    """Return the table of an encoder of ours. WeightsError where the library has none that is the same."""
    if encoder not in _NAMES:
        raise WeightsError(f"segmentation-models-pytorch has no encoder like '{encoder}'")
    return ENCODER


def encoder_name(file: ForeignWeights) -> str | None:
    """Return our name of the encoder, None where it is not one of ours."""
    if file.has("encoder.features.18.0.weight", "encoder.features.1.conv.0.0.weight"):
        return "mobilenet_v2"
    if not file.has("encoder.conv1.weight", "encoder.layer1.0.conv2.weight"):
        return authors_mit_name(file, "encoder")
    if file.shape("encoder.layer1.0.conv2.weight") != (64, 64, 3, 3):  # grouped or wide
        return None
    blocks = tuple(file.count(f"encoder.layer{layer}.{{i}}") for layer in (1, 2, 3, 4))
    return _DEPTHS.get((file.has("encoder.layer1.0.conv3"), blocks))


def first_convolution(encoder: str) -> str:
    """Return their name of the convolution that takes the image."""
    if encoder == "mobilenet_v2":
        return "encoder.features.0.0.weight"
    return "encoder.patch_embed1.proj.weight" if encoder.startswith("mit_") else "encoder.conv1.weight"
