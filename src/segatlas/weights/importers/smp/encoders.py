"""Encoders of segmentation-models-pytorch that are also ours. Their tensors have the same names below `encoder`."""

from __future__ import annotations

from segatlas.errors import WeightsError
from segatlas.weights.importers.foreign import ForeignWeights
from segatlas.weights.importers.mit import authors_mit_name
from segatlas.weights.importers.renames import Renames

ENCODERS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "mobilenet_v2"),
    *(f"mit_b{size}" for size in range(6)),
)

_RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
"""(has bottlenecks, blocks of each layer) -> name."""

_PLAIN_WIDTH = 64
"""Channels inside the first layer's blocks; ResNeXt and wide ResNets have more, under the same names."""


def encoder_name(file: ForeignWeights) -> str | None:
    """Return our name of the encoder, None where it is not one of ours."""
    if file.has("encoder.features.18.1.running_mean", "encoder.features.17.conv.0.0"):
        return "mobilenet_v2"
    if "encoder.conv1.weight" in file.tensors and file.has("encoder.layer4", "encoder.layer1.0.conv2"):
        blocks = tuple(file.count(f"encoder.layer{layer}.{{i}}") for layer in (1, 2, 3, 4))
        plain = file.shape("encoder.layer1.0.conv2.weight")[:2] == (_PLAIN_WIDTH, _PLAIN_WIDTH)
        special = file.has("encoder.layer1.0.se") or file.has("encoder.layer1.0.se_module")
        return _RESNETS.get((file.has("encoder.layer1.0.conv3"), blocks)) if plain and not special else None
    return authors_mit_name(file, "encoder")


def picture_channels(file: ForeignWeights) -> int:
    """Return the channels of the picture: the input of the first convolution."""
    firsts = ("encoder.conv1.weight", "encoder.features.0.0.weight", "encoder.patch_embed1.proj.weight")
    return file.shape(next(name for name in firsts if name in file.tensors))[1]


def encoder_renames(encoder: str | None) -> Renames:
    """Return the table of an encoder of ours. WeightsError where the library has none that is the same."""
    if encoder not in ENCODERS:
        raise WeightsError(f"segmentation-models-pytorch has no encoder like '{encoder}'")
    return [("encoder", "encoder")]
