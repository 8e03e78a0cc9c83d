"""UPerNet of MMSegmentation: `UPerHead`, on a plain transformer with `MultiLevelNeck`, `Feature2Pyramid` or no neck."""

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
from segatlas.conversion.importers.mmseg.vit import INDEX, mae_renames
from segatlas.conversion.importers.renames import Renames
from segatlas.encoders import TOKEN_ENCODERS
from segatlas.errors import WeightsError
from segatlas.models.upernet import UPerNetConfig

LEVELS = 4

_NECKS = {"resize": "neck.lateral_convs.0.conv.weight", "deconvolve": "neck.upsample_4x.0.weight"}
"""Our name of a neck -> a tensor of `MultiLevelNeck`, of `Feature2Pyramid`."""

_SCALES = (4, 2, 1, 0.5)

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
    neck = next((kind for kind, beginning in _NECKS.items() if file.has(beginning)), "none")
    if not has_head(file) or (neck == "none" and file.has("neck")):
        return None
    encoder = encoder_fields(file, output_stride=32)
    if encoder is None:
        return None
    return {**encoder, **decoder_fields(file), **_neck_fields(file, neck, encoder)}


def _neck_fields(file: ForeignWeights, neck: str, encoder: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the fields of the neck, and which map the auxiliary head sees where a plain transformer is below."""
    for key in ("scales", "rescales"):
        stated = file.stated(f"model.neck.{key}")
        if stated is not None and tuple(stated) != _SCALES:
            raise WeightsError(f"model.neck.{key} = {stated}: only {list(_SCALES)} is supported")
    if encoder["encoder"] not in TOKEN_ENCODERS:
        return {}
    published = LEVELS - 2 if encoder["encoder_options"].get("relative_positions") else LEVELS - 1
    has_aux = file.has("auxiliary_head.conv_seg")
    index = file.setting("model.auxiliary_head.in_index", published) if has_aux else published
    return {"neck": neck, "aux_level": LEVELS - index % LEVELS}


def renames(config: UPerNetConfig) -> Renames:
    """See `Importer`."""
    relative = getattr(config.encoder.options, "relative_positions", False)
    return [
        *(mae_renames("encoder.vit") if relative else encoder_renames(config.encoder.name)),
        ("neck.lateral_convs.{i}.conv", "neck.lateral.{i}"),
        ("neck.convs.{i}.conv", "neck.output.{i}"),
        ("neck.upsample_4x", "neck.up4"),
        ("neck.upsample_2x.0", "neck.up2"),
        *HEAD,
    ]


IMPORTER = Importer(
    source="mmseg",
    architecture="upernet",
    recognise=recognise,
    renames=renames,
    dropped=INDEX,
    changes=encoder_changes,
    stacks=encoder_stacks,
    constants=encoder_constants,
)
