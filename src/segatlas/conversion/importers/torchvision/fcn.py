"""torchvision's FCN: one 3x3 convolution and the classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.torchvision.backbones import AUX, aux_fields, encoder_fields, encoder_renames
from segatlas.models.fcn import FCNConfig


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    encoder = encoder_fields(file)
    parts = {".".join(name.split(".")[:2]) for name in file.tensors if name.startswith("classifier.")}
    if encoder is None or parts != {"classifier.0", "classifier.1", "classifier.4"}:
        return None
    if len(file.shape("classifier.4.weight")) != 4 or file.has("classifier.0.convs"):
        return None
    return {
        **encoder,
        **aux_fields(file),
        "num_classes": file.shape("classifier.4.weight")[0],
        "channels": file.shape("classifier.0.weight")[0],
        "convs": 1,
        "concat_input": False,
    }


def renames(config: FCNConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder.name),
        ("classifier.0", "convs.0.conv"),
        ("classifier.1", "convs.0.bn"),
        ("classifier.4", "classifier"),
        *AUX,
    ]


IMPORTER = Importer(source="torchvision", architecture="fcn", recognise=recognise, renames=renames)
