"""UPerNet of MMSegmentation: `UPerHead`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.backbones import encoder_fields, encoder_renames
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER, FCN_AUX, head_fields
from segatlas.conversion.importers.renames import Renames
from segatlas.models.upernet import UPerNetConfig

_PARTS = {"psp_modules", "bottleneck", "lateral_convs", "fpn_convs", "fpn_bottleneck", "conv_seg"}

HEAD: Renames = (
    ("decode_head.psp_modules.{i}.1", "ppm.pools.{i}"),
    ("decode_head.bottleneck", "ppm.fuse"),
    ("decode_head.lateral_convs.{i}", "lateral.{i}"),
    ("decode_head.fpn_convs.{i}", "output.{i}"),
    ("decode_head.fpn_bottleneck", "fuse"),
    *CLASSIFIER,
    *FCN_AUX,
)
"""The head and the auxiliary one, whatever backbone they stand on."""


def has_head(file: ForeignWeights) -> bool:
    """Tell whether the head is a UPerNet's."""
    return {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")} == _PARTS


def decoder_fields(file: ForeignWeights) -> Mapping[str, Any]:
    """Return the config fields of the head and the auxiliary one."""
    return {
        **head_fields(file),
        "levels": file.count("decode_head.lateral_convs.{i}") + 1,
        "channels": file.shape("decode_head.fpn_bottleneck.conv.weight")[0],
        "pool_scales": tuple(file.stated("model.decode_head.pool_scales") or UPerNetConfig.pool_scales),
    }


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not has_head(file) or file.has("neck"):
        return None
    encoder = encoder_fields(file, output_stride=32)
    return None if encoder is None else {**encoder, **decoder_fields(file)}


def renames(config: UPerNetConfig) -> Renames:
    """See `Importer`."""
    return [*encoder_renames(config.encoder.name), *HEAD]


IMPORTER = Importer(source="mmseg", architecture="upernet", recognise=recognise, renames=renames)
