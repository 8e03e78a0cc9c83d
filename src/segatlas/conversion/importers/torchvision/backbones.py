"""Backbones of torchvision's segmentation networks: ResNet at stride 8, MobileNetV3-Large at stride 16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.renames import Renames

_RESNETS = {6: "resnet50", 23: "resnet101"}
"""Blocks of the third layer -> name."""

AUX: Renames = (
    ("aux_classifier.0", "aux_head.conv.conv"),
    ("aux_classifier.1", "aux_head.conv.bn"),
    ("aux_classifier.4", "aux_head.classifier"),
)
"""The auxiliary FCN head of one 3x3 convolution."""


def encoder_fields(file: ForeignWeights) -> Mapping[str, Any] | None:
    """Return the config fields of the encoder, or None where torchvision has no such backbone."""
    if file.has("backbone.1.block", "backbone.16.0"):
        name, stride, first = "mobilenet_v3_large", 16, "backbone.0.0.weight"
    elif file.has("backbone.conv1.weight", "backbone.layer1.0.conv3"):
        name, stride, first = _RESNETS.get(file.count("backbone.layer3.{i}"), ""), 8, "backbone.conv1.weight"
    else:
        return None
    return {"encoder": name, "output_stride": stride, "in_channels": file.shape(first)[1]} if name else None


def encoder_renames(encoder: str) -> Renames:
    """Return the table of an encoder of ours."""
    return (("backbone", "encoder" if encoder.startswith("resnet") else "encoder.features"),)


def aux_fields(file: ForeignWeights) -> Mapping[str, Any]:
    """Return the config fields of the auxiliary head."""
    aux = file.has("aux_classifier.4")
    return {"aux": aux, "aux_channels": file.shape("aux_classifier.0.weight")[0] if aux else None}
