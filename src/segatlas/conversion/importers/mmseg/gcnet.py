"""GCNet of MMSegmentation: `GCHead`, with attention pooling."""

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
from segatlas.conversion.importers.renames import Renames
from segatlas.models.gcnet import GCNetConfig

_HEAD = {"conv_seg", "convs", "conv_cat", "gc_block"}


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    parts = {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")}
    if parts != _HEAD or not file.has("decode_head.gc_block.conv_mask"):
        return None
    encoder = encoder_fields(file, output_stride=8)
    if encoder is None:
        return None
    add, multiply = (file.has(f"decode_head.gc_block.channel_{way}_conv") for way in ("add", "mul"))
    way = "add" if add else "mul"
    inner, channels, *_ = file.shape(f"decode_head.gc_block.channel_{way}_conv.0.weight")
    return {
        **encoder,
        **head_fields(file),
        "channels": channels,
        "ratio": inner / channels,
        "channel_add": add,
        "channel_mul": multiply,
    }


def renames(config: GCNetConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder.name),
        ("decode_head.convs.0", "before"),
        ("decode_head.convs.1", "after"),
        ("decode_head.conv_cat", "fuse"),
        ("decode_head.gc_block.conv_mask", "block.mask"),
        ("decode_head.gc_block.channel_add_conv", "block.add"),
        ("decode_head.gc_block.channel_mul_conv", "block.multiply"),
        *CLASSIFIER,
        *FCN_AUX,
    ]


IMPORTER = Importer(
    source="mmseg",
    architecture="gcnet",
    recognise=recognise,
    renames=renames,
    changes=encoder_changes,
    stacks=encoder_stacks,
    constants=encoder_constants,
)
