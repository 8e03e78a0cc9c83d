"""DNLNet of MMSegmentation: `DNLHead`."""

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
from segatlas.errors import WeightsError
from segatlas.models.dnlnet import DNLNetConfig

_HEAD = {"conv_seg", "convs", "conv_cat", "dnl_block"}


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    parts = {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")}
    if parts != _HEAD:
        return None
    encoder = encoder_fields(file, output_stride=8)
    if encoder is None:
        return None
    mode = file.stated("model.decode_head.mode") or "embedded_gaussian"
    if mode != "embedded_gaussian" or not file.has("decode_head.dnl_block.theta"):
        raise WeightsError(f"a DNLHead that compares by '{mode}'; only 'embedded_gaussian', the paper's, can be read")
    inner, channels, *_ = file.shape("decode_head.dnl_block.g.conv.weight")
    return {
        **encoder,
        **head_fields(file),
        "channels": channels,
        "reduction": channels // inner,
        "use_scale": file.setting("model.decode_head.use_scale", True),
        "temperature": file.setting("model.decode_head.temperature", 0.05),
    }


def renames(config: DNLNetConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder.name),
        ("decode_head.convs.0", "before"),
        ("decode_head.convs.1", "after"),
        ("decode_head.conv_cat", "fuse"),
        ("decode_head.dnl_block.theta.conv", "block.theta"),
        ("decode_head.dnl_block.phi.conv", "block.phi"),
        ("decode_head.dnl_block.g.conv", "block.g"),
        ("decode_head.dnl_block.conv_mask", "block.saliency"),
        ("decode_head.dnl_block.conv_out", "block"),
        *CLASSIFIER,
        *FCN_AUX,
    ]


IMPORTER = Importer(
    source="mmseg",
    architecture="dnlnet",
    recognise=recognise,
    renames=renames,
    changes=encoder_changes,
    stacks=encoder_stacks,
    constants=encoder_constants,
)
