"""DeepLabV3+ of MMSegmentation: `DepthwiseSeparableASPPHead` as decode head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Change, Importer
from segatlas.conversion.importers.mmseg.aspp import ASPP, ASPP_PARTS, aspp_changes, aspp_fields, separable_parts
from segatlas.conversion.importers.mmseg.backbones import (
    encoder_changes,
    encoder_constants,
    encoder_fields,
    encoder_renames,
    encoder_stacks,
)
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER, FCN_AUX, head_fields
from segatlas.conversion.importers.renames import Renames
from segatlas.models.deeplabv3plus import DeepLabV3PlusConfig


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    parts = {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")}
    if parts != ASPP_PARTS | {"c1_bottleneck", "sep_bottleneck"} or file.has("neck"):
        return None
    encoder = encoder_fields(file, output_stride=8)
    if encoder is None:
        return None
    return {
        **encoder,
        **head_fields(file),
        **aspp_fields(file),
        "low_channels": file.shape("decode_head.c1_bottleneck.conv.weight")[0],
        "refine_convs": file.count("decode_head.sep_bottleneck.{i}"),
    }


def renames(config: DeepLabV3PlusConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder.name),
        ("decode_head.aspp_modules.0", "aspp.branches.0"),
        *separable_parts("decode_head.aspp_modules.{i}", "aspp.branches.{i}"),
        *ASPP,
        ("decode_head.c1_bottleneck", "low"),
        *separable_parts("decode_head.sep_bottleneck.{i}", "refine.{i}"),
        *CLASSIFIER,
        *FCN_AUX,
    ]


def changes(config: DeepLabV3PlusConfig) -> Mapping[str, tuple[Change, Change]]:
    """See `Importer`."""
    return {**encoder_changes(config), **aspp_changes(config.channels)}


IMPORTER = Importer(
    source="mmseg",
    architecture="deeplabv3plus",
    recognise=recognise,
    renames=renames,
    changes=changes,
    stacks=encoder_stacks,
    constants=encoder_constants,
)
