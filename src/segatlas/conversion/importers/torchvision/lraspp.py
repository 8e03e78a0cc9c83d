"""torchvision's LR-ASPP on MobileNetV3-Large."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.torchvision.backbones import encoder_fields, encoder_renames
from segatlas.models.lraspp import LRASPPConfig


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    encoder = encoder_fields(file)
    if encoder is None or not file.has("classifier.cbr.0", "classifier.scale.1", "classifier.high_classifier"):
        return None
    return {
        **encoder,
        "num_classes": file.shape("classifier.high_classifier.weight")[0],
        "channels": file.shape("classifier.cbr.0.weight")[0],
    }


def renames(config: LRASPPConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder.name),
        ("classifier.cbr.0", "conv.conv"),
        ("classifier.cbr.1", "conv.bn"),
        ("classifier.scale.1", "gate"),
        ("classifier.low_classifier", "classifier.low"),
        ("classifier.high_classifier", "classifier.high"),
    ]


IMPORTER = Importer(source="torchvision", architecture="lraspp", recognise=recognise, renames=renames)
