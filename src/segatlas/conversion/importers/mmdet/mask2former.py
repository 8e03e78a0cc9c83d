"""MMDetection's Mask2Former, instance and panoptic, on its ResNet and Swin Transformer."""

from __future__ import annotations

from segatlas.config.objects import MASK2FORMER
from segatlas.conversion.importers.mmdet.query_facts import facts_of
from segatlas.conversion.importers.mmdet.source import is_bgr
from segatlas.conversion.importers.mmseg.mask_queries import mask2former_fields, mask2former_renames, query_importer

HEAD = "panoptic_head"

IMPORTER = query_importer(
    "mmdet",
    "mask2former",
    HEAD,
    recognise=lambda file: mask2former_fields(file, HEAD, is_bgr(file)),
    renames=mask2former_renames,
    card_fields=lambda file, config: facts_of(file, config.num_classes, MASK2FORMER),
)
