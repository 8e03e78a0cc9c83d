"""MMSegmentation's MaskFormer, semantic, on its ResNet and Swin Transformer. All are for class maps."""

from __future__ import annotations

from segatlas.config.objects import CLASS_MAPS_OF_QUERIES
from segatlas.conversion.importers.mmseg.mask_queries import maskformer_fields, maskformer_renames, query_importer

HEAD = "decode_head"

IMPORTER = query_importer(
    "mmseg",
    "maskformer",
    HEAD,
    recognise=lambda file: maskformer_fields(file, HEAD),
    renames=maskformer_renames,
    card_fields=lambda file, config: {"task": "semantic", "objects": CLASS_MAPS_OF_QUERIES},
)
