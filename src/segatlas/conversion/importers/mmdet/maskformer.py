"""MMDetection's MaskFormer, panoptic, on its ResNet and Swin Transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segatlas.config.objects import MMDET_MASKFORMER
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmdet.query_facts import facts_of
from segatlas.conversion.importers.mmdet.source import is_bgr
from segatlas.conversion.importers.mmseg.backbones import encoder_changes, encoder_constants
from segatlas.conversion.importers.mmseg.mask_queries import maskformer_fields, maskformer_renames, query_stacks
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.models.maskformer import MaskFormerConfig

HEAD = "panoptic_head"


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    return maskformer_fields(file, HEAD, is_bgr(file))


def renames(config: MaskFormerConfig) -> Renames:
    """See `Importer`."""
    return maskformer_renames(HEAD, config.encoder.name, config.pixel_layers)


def stacks(config: MaskFormerConfig) -> Sequence[Stack]:
    """See `Importer`."""
    return query_stacks(HEAD, config)


def card_fields(file: ForeignWeights, config: MaskFormerConfig) -> Mapping[str, Any]:
    """See `Importer`."""
    return facts_of(file, config.num_classes, MMDET_MASKFORMER)


IMPORTER = Importer(
    source="mmdet",
    architecture="maskformer",
    recognise=recognise,
    renames=renames,
    changes=encoder_changes,
    stacks=stacks,
    constants=encoder_constants,
    card_fields=card_fields,
)
