"""torchvision's LR-ASPP on MobileNetV3-Large."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.models.lraspp import LRASPPConfig
from segatlas.weights.importers.foreign import ForeignWeights
from segatlas.weights.importers.importer import Importer
from segatlas.weights.importers.renames import Renames
from segatlas.weights.importers.torchvision.backbones import encoder_fields, encoder_renames


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
        *encoder_renames(config.encoder),
        ("classifier.cbr.0", "conv.conv"),
        ("classifier.cbr.1", "conv.bn"),
        ("classifier.scale.1", "gate"),
        ("classifier.low_classifier", "classifier.low"),
        ("classifier.high_classifier", "classifier.high"),
    ]


IMPORTER = Importer(source="torchvision", architecture="lraspp", recognise=recognise, renames=renames)
