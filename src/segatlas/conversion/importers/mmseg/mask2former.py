"""MMSegmentation's Mask2Former, semantic, on its ResNet and Swin Transformer. All are for class maps."""

from __future__ import annotations

from segatlas.config.objects import CLASS_MAPS_OF_QUERIES
from segatlas.conversion.importers.mmseg.mask_queries import mask2former_fields, mask2former_renames, query_importer

HEAD = "decode_head"

IMPORTER = query_importer(
    "mmseg",
    "mask2former",
    HEAD,
    recognise=lambda file: mask2former_fields(file, HEAD),
    renames=mask2former_renames,
    card_fields=lambda file, config: {"task": "semantic", "objects": CLASS_MAPS_OF_QUERIES},
)
