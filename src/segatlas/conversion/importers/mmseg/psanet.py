"""PSANet of MMSegmentation: `PSAHead`."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
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
from segatlas.models.psanet import PSANetConfig

_HEAD = {"conv_seg", "reduce", "attention", "proj", "bottleneck"}
_SECOND_BRANCH = {"reduce_p", "attention_p"}


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    parts = {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")}
    if parts not in (_HEAD, _HEAD | _SECOND_BRANCH):
        return None
    encoder = encoder_fields(file, output_stride=8)
    if encoder is None:
        return None
    if file.stated("model.decode_head.compact"):
        raise WeightsError("a PSAHead with compact=True takes images of one size only; this form cannot be read")
    both = parts > _HEAD
    kind = "bi-direction" if both else file.setting("model.decode_head.psa_type", "collect")
    return {
        **encoder,
        **head_fields(file),
        "channels": file.shape("decode_head.reduce.conv.weight")[0],
        "mask_size": _mask_size(file),
        "collect": kind != "distribute",
        "distribute": kind != "collect",
        "shrink_factor": file.setting("model.decode_head.shrink_factor", 2),
        "softmax": file.setting("model.decode_head.psa_softmax", True),
        "normalization_factor": _normalization_factor(file),
    }


def _mask_size(file: ForeignWeights) -> tuple[int, int]:
    """Return the window's height and width: the weights tell their product."""
    stated = file.stated("model.decode_head.mask_size")
    if stated:
        return stated[0], stated[1]
    places = file.shape("decode_head.attention.1.weight")[0]
    side = isqrt(places)
    if side * side != places:
        raise WeightsError(f"a PSAHead with {places} weights a mask: its mask_size must be told by a config")
    return side, side


def _normalization_factor(file: ForeignWeights) -> float | None:
    """Return the divisor; None, which stands for the size of the mask, is a setting like any other."""
    head = file.stated("model.decode_head") or {}
    if "normalization_factor" in head and head["normalization_factor"] is None:
        return None
    return float(file.setting("model.decode_head.normalization_factor", 1.0))


def renames(config: PSANetConfig) -> Renames:
    """See `Importer`."""
    branches = ["collect"] * config.collect + ["distribute"] * config.distribute
    table: list[tuple[str, str]] = []
    for ours, suffix in zip(branches, ("", "_p"), strict=False):
        table += [
            (f"decode_head.reduce{suffix}", f"{ours}.reduce"),
            (f"decode_head.attention{suffix}.0", f"{ours}.guide"),
            (f"decode_head.attention{suffix}.1", f"{ours}.mask"),
        ]
    return [
        *encoder_renames(config.encoder.name),
        *table,
        ("decode_head.proj", "project"),
        ("decode_head.bottleneck", "fuse"),
        *CLASSIFIER,
        *FCN_AUX,
    ]


IMPORTER = Importer(
    source="mmseg",
    architecture="psanet",
    recognise=recognise,
    renames=renames,
    changes=encoder_changes,
    stacks=encoder_stacks,
    constants=encoder_constants,
)
