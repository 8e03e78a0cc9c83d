"""OCRNet of MMSegmentation: an `FCNHead` whose logits are the soft regions, then an `OCRHead`."""

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
    levels_used,
)
from segatlas.conversion.importers.mmseg.heads import image_channels
from segatlas.conversion.importers.renames import Renames
from segatlas.models.ocrnet import OCRNetConfig

_ATTENTION = "decode_head.1.object_context_block"


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("decode_head.0.convs.0.conv.weight", f"{_ATTENTION}.query_project.0.conv.weight"):
        return None
    encoder = encoder_fields(file, output_stride=8)
    if encoder is None:
        return None
    width, in_channels = file.shape("decode_head.1.bottleneck.conv.weight")[:2]
    levels = levels_used(encoder, in_channels)
    dropout = file.stated("model.decode_head.1.dropout_ratio")
    if dropout is None:  # as published: on one dilated map a tenth, on HRNet's four maps none
        dropout = 0.1 if levels == 1 else 0.0
    return {
        **encoder,
        "num_classes": file.shape("decode_head.1.conv_seg.weight")[0],
        "in_channels": image_channels(file),
        "levels": levels,
        "channels": width,
        "key_channels": file.shape(f"{_ATTENTION}.value_project.conv.weight")[0],
        "dropout": max(dropout, 0.0),
        "align_corners": file.setting("model.decode_head.1.align_corners", False),
        "aux_channels": file.shape("decode_head.0.convs.0.conv.weight")[0],
    }


def renames(config: OCRNetConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder.name),
        ("decode_head.0.convs.0", "region_head.conv"),
        ("decode_head.0.conv_seg", "region_head.classifier"),
        (f"{_ATTENTION}.query_project", "attention.query"),
        (f"{_ATTENTION}.key_project", "attention.key"),
        (f"{_ATTENTION}.value_project", "attention.value"),
        (f"{_ATTENTION}.out_project", "attention.out"),
        (f"{_ATTENTION}.bottleneck", "fuse"),
        ("decode_head.1.bottleneck", "bottleneck"),
        ("decode_head.1.conv_seg", "classifier"),
    ]


IMPORTER = Importer(
    source="mmseg",
    architecture="ocrnet",
    recognise=recognise,
    renames=renames,
    changes=encoder_changes,
    stacks=encoder_stacks,
    constants=encoder_constants,
)
