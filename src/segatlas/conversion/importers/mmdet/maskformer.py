"""MMDetection's MaskFormer, panoptic, on its ResNet and Swin Transformer."""

from __future__ import annotations

from segatlas.config.objects import MMDET_MASKFORMER
from segatlas.conversion.importers.mmdet.query_facts import facts_of
from segatlas.conversion.importers.mmdet.source import is_bgr
from segatlas.conversion.importers.mmseg.mask_queries import maskformer_fields, maskformer_renames, query_importer

HEAD = "panoptic_head"

IMPORTER = query_importer(
    "mmdet",
    "maskformer",
    HEAD,
    recognise=lambda file: maskformer_fields(file, HEAD, is_bgr(file)),
    renames=maskformer_renames,
    card_fields=lambda file, config: facts_of(file, config.num_classes, MMDET_MASKFORMER),
)
