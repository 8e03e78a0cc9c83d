"""Semantic FPN of MMSegmentation: `FPN` as neck, `FPNHead` as decode head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.backbones import (
    encoder_changes,
    encoder_constants,
    encoder_fields,
    encoder_renames,
    encoder_stacks,
)
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER, FCN_AUX, head_fields
from segatlas.conversion.importers.mmseg.pyramid import is_pyramid, pyramid_fields, pyramid_renames
from segatlas.conversion.importers.renames import Renames
from segatlas.models.semantic_fpn import SemanticFPNConfig


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not is_pyramid(file, "decode_head"):
        return None
    encoder = encoder_fields(file, output_stride=32)
    if encoder is None:
        return None
    return {**encoder, **head_fields(file), **pyramid_fields(file, "decode_head")}


def renames(config: SemanticFPNConfig) -> Renames:
    """See `Importer`."""
    return [*encoder_renames(config.encoder.name), *pyramid_renames("decode_head"), *CLASSIFIER, *FCN_AUX]


IMPORTER = Importer(
    source="mmseg",
    architecture="semantic_fpn",
    recognise=recognise,
    renames=renames,
    changes=encoder_changes,
    stacks=encoder_stacks,
    constants=encoder_constants,
)
