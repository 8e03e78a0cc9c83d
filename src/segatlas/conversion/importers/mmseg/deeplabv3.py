"""DeepLabV3 of MMSegmentation: `ASPPHead` as decode head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Change, Importer
from segatlas.conversion.importers.mmseg.aspp import ASPP, ASPP_PARTS, aspp_changes, aspp_fields
from segatlas.conversion.importers.mmseg.backbones import (
    encoder_changes,
    encoder_constants,
    encoder_fields,
    encoder_renames,
    encoder_stacks,
)
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER, FCN_AUX, head_fields
from segatlas.conversion.importers.renames import Renames
from segatlas.models.deeplabv3 import DeepLabV3Config


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    parts = {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")}
    if parts != ASPP_PARTS or file.has("neck"):
        return None
    encoder = encoder_fields(file, output_stride=8)
    if encoder is None:
        return None
    return {**encoder, **head_fields(file), **aspp_fields(file)}


def renames(config: DeepLabV3Config) -> Renames:
    """See `Importer`."""
    return [*encoder_renames(config.encoder.name), *ASPP, *CLASSIFIER, *FCN_AUX]


def changes(config: DeepLabV3Config) -> Mapping[str, tuple[Change, Change]]:
    """See `Importer`."""
    return {**encoder_changes(config), **aspp_changes(config.channels)}


IMPORTER = Importer(
    source="mmseg",
    architecture="deeplabv3",
    recognise=recognise,
    renames=renames,
    changes=changes,
    stacks=encoder_stacks,
    constants=encoder_constants,
)
