"""SETR of MMSegmentation: naive and PUP, which are `SETRUPHead`, and MLA, which is `MLANeck` and `SETRMLAHead`.

MLA's transformer has no class token among its tokens, but the file holds one, and a position for it: neither is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Change, Importer
from segatlas.conversion.importers.mmseg.heads import image_channels
from segatlas.conversion.importers.mmseg.vit import chosen_blocks, vit_fields, vit_renames
from segatlas.conversion.importers.renames import Renames
from segatlas.encoders.vit import FORMS
from segatlas.errors import WeightsError
from segatlas.models.setr import AUX_SCALE, SETRConfig

_UP = {"norm", "up_convs", "conv_seg"}
_MLA = {"up_convs", "conv_seg"}
_UP_BLOCKS = {24: (9, 14, 19, 23)}
_MLA_BLOCKS = {24: (5, 11, 17, 23)}
_SCALES = {1: 4, 2: 4}
"""Convolutions -> what is upsampled by after each of them, in published heads; 2 otherwise."""
_CLASS_TOKEN = "backbone.cls_token"


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    parts = {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")}
    if parts == _UP and not file.has("neck"):
        return _fields(file, _up_fields)
    if parts == _MLA and file.has("neck.mla.channel_proj", "neck.mla.feat_extract"):
        return _fields(file, _mla_fields)
    return None


def _fields(file: ForeignWeights, of_decoder: Any) -> Mapping[str, Any] | None:
    encoder = vit_fields(file, class_token=of_decoder is _up_fields)
    if encoder is None:
        return None
    name, options = encoder
    return {
        "num_classes": file.shape("decode_head.conv_seg.weight")[0],
        "in_channels": image_channels(file),
        "encoder": name,
        "encoder_options": options,
        "align_corners": file.setting("model.decode_head.align_corners", False),
        **of_decoder(file),
    }


def _up_fields(file: ForeignWeights) -> Mapping[str, Any]:
    """Return the fields of naive and PUP."""
    heads, convs = file.count("auxiliary_head.{i}"), file.count("decode_head.up_convs.{i}")
    channels, _, kernel_size, _ = file.shape("decode_head.up_convs.0.0.conv.weight")
    blocks = chosen_blocks(file, _UP_BLOCKS, count=heads + 1)
    _require_order(file, len(blocks), heads)
    return {
        "blocks": blocks,
        "channels": channels,
        "convs": convs,
        "kernel_size": kernel_size,
        "scale": file.setting("model.decode_head.up_scale", _SCALES.get(convs, 2)),
        "aux": heads > 0,
        "aux_convs": file.count("auxiliary_head.0.up_convs.{i}") or SETRConfig.aux_convs,
    }


def _require_order(file: ForeignWeights, levels: int, heads: int) -> None:
    """Raise WeightsError where settings state another order of heads over the blocks than published."""
    stated = file.stated("model.decode_head.in_index")
    if stated is not None and stated % levels != levels - 1:
        raise WeightsError(f"model.decode_head.in_index = {stated}: only the last of {levels} is supported")
    for index in range(heads):
        for key, wanted in (("in_index", index), ("up_scale", AUX_SCALE)):
            stated = file.stated(f"model.auxiliary_head.{index}.{key}")
            if stated not in (None, wanted):
                raise WeightsError(f"model.auxiliary_head.{index}.{key} = {stated}: only {wanted} is supported")
    if heads not in (0, levels - 1):
        raise WeightsError(f"{heads} auxiliary heads over {levels} blocks: expected one for each but the last, or none")


def _mla_fields(file: ForeignWeights) -> Mapping[str, Any]:
    """Return the fields of MLA."""
    levels = file.count("neck.mla.channel_proj.{i}")
    stated = file.stated("model.decode_head.in_index")
    if stated is not None and list(stated) != list(range(levels)):
        raise WeightsError(f"model.decode_head.in_index = {stated}: only {list(range(levels))} is supported")
    return {
        "blocks": chosen_blocks(file, _MLA_BLOCKS, count=levels),
        "decoder": "mla",
        "channels": file.shape("neck.mla.channel_proj.0.conv.weight")[0],
        "branch_channels": file.shape("decode_head.up_convs.0.0.conv.weight")[0],
        "scale": file.setting("model.decode_head.up_scale", 4),
        "aux": file.has("auxiliary_head.0.conv_seg"),
    }


def renames(config: SETRConfig) -> Renames:
    """See `Importer`."""
    own = _up_renames(config) if config.decoder == "up" else _mla_renames(config)
    return [*vit_renames(), *own, ("decode_head.conv_seg", "classifier")]


def _up_renames(config: SETRConfig) -> Renames:
    heads: Sequence[int] = config.blocks[:-1] if config.aux else ()
    parts = (("norm", "decoder.norm"), ("up_convs.{i}.0", "decoder.convs.{i}"), ("conv_seg", "classifier"))
    return [
        ("decode_head.norm", "decoder.norm"),
        ("decode_head.up_convs.{i}.0", "decoder.convs.{i}"),
        *(
            (f"auxiliary_head.{index}.{theirs}", f"aux_heads.z{block + 1}.{ours}")
            for index, block in enumerate(heads)
            for theirs, ours in parts
        ),
    ]


def _mla_renames(config: SETRConfig) -> Renames:
    heads: Sequence[int] = config.blocks[::-1] if config.aux else ()
    return [
        ("neck.norm.{i}", "decoder.norms.{i}"),
        ("neck.mla.channel_proj.{i}", "decoder.project.{i}"),
        ("neck.mla.feat_extract.{i}", "decoder.extract.{i}"),
        ("decode_head.up_convs.{i}.{j}", "decoder.branches.{i}.{j}"),
        *((f"auxiliary_head.{index}.conv_seg", f"aux_heads.z{block + 1}") for index, block in enumerate(heads)),
    ]


def changes(config: SETRConfig) -> Mapping[str, tuple[Change, Change]]:
    """See `Importer`: ours has no position for a class token that is not there."""
    return {} if _has_class_token(config) else {"encoder.pos_embed": (without_first, with_first)}


def without_first(positions: Tensor) -> Tensor:
    """Return positions (1, L, E) of (1, 1 + L, E)."""
    return positions[:, 1:]


def with_first(positions: Tensor) -> Tensor:
    """Return positions (1, 1 + L, E), the first zero, of (1, L, E)."""
    return F.pad(positions, (0, 0, 1, 0))


def constants(config: SETRConfig) -> Mapping[str, Tensor]:
    """See `Importer`."""
    width = FORMS[config.encoder.name].width
    return {} if _has_class_token(config) else {_CLASS_TOKEN: torch.zeros(1, 1, width)}


def _has_class_token(config: SETRConfig) -> bool:
    """Tell whether a network has one; MMSegmentation's MLA has not, its others have."""
    has = bool(getattr(config.encoder.options, "class_token", True))
    if has == (config.decoder == "mla") or config.encoder.name not in FORMS:
        raise WeightsError(
            "MMSegmentation has SETR on its plain transformer only, with a class token (naive, PUP) or without (MLA)"
        )
    return has


IMPORTER = Importer(
    source="mmseg",
    architecture="setr",
    recognise=recognise,
    renames=renames,
    changes=changes,
    constants=constants,
)
