"""FCN of MMSegmentation: `FCNHead` as decode head, on one map or on several concatenated (HRNet)."""

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
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER, FCN_AUX, head_fields
from segatlas.conversion.importers.renames import Renames
from segatlas.errors import WeightsError
from segatlas.models.fcn import FCNConfig

_HEAD = {"conv_seg", "convs", "conv_cat"}


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    parts = {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")}
    if not {"conv_seg", "convs"} <= parts <= _HEAD:
        return None
    encoder = encoder_fields(file, output_stride=8)
    if encoder is None:
        return None
    first = file.shape("decode_head.convs.0.conv.weight")
    return {
        **encoder,
        **head_fields(file),
        "channels": first[0],
        "kernel_size": first[2],
        "convs": file.count("decode_head.convs.{i}"),
        "concat_input": "conv_cat" in parts,
        "dilation": _dilation(file),
        "levels": levels_used(encoder, first[1]),
    }


def _dilation(file: ForeignWeights) -> int:
    """Return the dilation of the head. WeightsError where that of the auxiliary head, if there is one, differs."""
    if not file.settings:
        return int(file.setting("model.decode_head.dilation", 1))
    dilation: int = file.stated("model.decode_head.dilation") or 1
    auxiliary = file.stated("model.auxiliary_head.dilation") or 1
    if file.has("auxiliary_head.convs.0") and auxiliary != dilation:
        raise WeightsError(f"heads of different dilation, {dilation} and {auxiliary} (auxiliary); here they share one")
    return dilation


def renames(config: FCNConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder.name),
        ("decode_head.convs.{i}", "convs.{i}"),
        ("decode_head.conv_cat", "fuse"),
        *CLASSIFIER,
        *FCN_AUX,
    ]


IMPORTER = Importer(
    source="mmseg",
    architecture="fcn",
    recognise=recognise,
    renames=renames,
    changes=encoder_changes,
    stacks=encoder_stacks,
    constants=encoder_constants,
)
