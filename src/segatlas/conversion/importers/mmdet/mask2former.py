"""MMDetection's Mask2Former, instance and panoptic, on its ResNet and Swin Transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segatlas.config.objects import MASK2FORMER
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmdet.query_facts import facts_of
from segatlas.conversion.importers.mmdet.source import is_bgr
from segatlas.conversion.importers.mmseg.backbones import encoder_changes, encoder_constants
from segatlas.conversion.importers.mmseg.mask_queries import mask2former_fields, mask2former_renames, query_stacks
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.models.mask2former import Mask2FormerConfig

HEAD = "panoptic_head"


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    return mask2former_fields(file, HEAD, is_bgr(file))


def renames(config: Mask2FormerConfig) -> Renames:
    """See `Importer`."""
    return mask2former_renames(HEAD, config.encoder.name)


def stacks(config: Mask2FormerConfig) -> Sequence[Stack]:
    """See `Importer`."""
    return query_stacks(HEAD, config)


def card_fields(file: ForeignWeights, config: Mask2FormerConfig) -> Mapping[str, Any]:
    """See `Importer`."""
    return facts_of(file, config.num_classes, MASK2FORMER)


IMPORTER = Importer(
    source="mmdet",
    architecture="mask2former",
    recognise=recognise,
    renames=renames,
    changes=encoder_changes,
    stacks=stacks,
    constants=encoder_constants,
    card_fields=card_fields,
)
