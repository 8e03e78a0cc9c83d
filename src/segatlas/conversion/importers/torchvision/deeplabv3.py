"""torchvision's DeepLabV3: ASPP fused by a 1x1 convolution, a 3x3 convolution, the classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.torchvision.backbones import AUX, aux_fields, encoder_fields, encoder_renames
from segatlas.models.deeplabv3 import DeepLabV3Config

BRANCHES = 4
ASPP_DROPOUT = 0.5


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    encoder = encoder_fields(file)
    if encoder is None or not file.has("classifier.0.convs.4.1", "classifier.0.project.0", "classifier.4"):
        return None
    return {
        **encoder,
        **aux_fields(file),
        "num_classes": file.shape("classifier.4.weight")[0],
        "channels": file.shape("classifier.1.weight")[0],
        "fuse_kernel_size": 1,
        "convs": 1,
        "aspp_dropout": ASPP_DROPOUT,
        # under a MobileNetV3 the auxiliary head stands on the map at stride 8
        "aux_level": 3 if encoder["encoder"] == "mobilenet_v3_large" else 2,
    }


def renames(config: DeepLabV3Config) -> Renames:
    """See `Importer`."""
    pooled = f"classifier.0.convs.{BRANCHES}"
    return [
        *encoder_renames(config.encoder.name),
        (f"{pooled}.1", "aspp.pool.conv"),
        (f"{pooled}.2", "aspp.pool.bn"),
        ("classifier.0.convs.{i}.0", "aspp.branches.{i}.conv"),
        ("classifier.0.convs.{i}.1", "aspp.branches.{i}.bn"),
        ("classifier.0.project.0", "aspp.fuse.conv"),
        ("classifier.0.project.1", "aspp.fuse.bn"),
        ("classifier.1", "convs.0.conv"),
        ("classifier.2", "convs.0.bn"),
        ("classifier.4", "classifier"),
        *AUX,
    ]


IMPORTER = Importer(source="torchvision", architecture="deeplabv3", recognise=recognise, renames=renames)
