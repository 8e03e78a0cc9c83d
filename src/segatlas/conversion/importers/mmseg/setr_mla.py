"""SETR of MMSegmentation, MLA: `MLANeck` and `SETRMLAHead`.

Its transformer has no class token among its tokens, but the file holds one, and a position for it: neither is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Change, Importer
from segatlas.conversion.importers.mmseg.heads import image_channels
from segatlas.conversion.importers.mmseg.setr import chosen_blocks
from segatlas.conversion.importers.mmseg.vit import vit_fields, vit_renames
from segatlas.conversion.importers.renames import Renames
from segatlas.encoders.vit import FORMS
from segatlas.errors import WeightsError
from segatlas.models.setr import SETRConfig

_HEAD = {"up_convs", "conv_seg"}
_PUBLISHED = {24: (5, 11, 17, 23)}
_CLASS_TOKEN = "backbone.cls_token"


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    parts = {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")}
    if parts != _HEAD or not file.has("neck.mla.channel_proj", "neck.mla.feat_extract"):
        return None
    if file.stated("model.backbone.with_cls_token"):
        raise WeightsError("model.backbone.with_cls_token = True: SETR-MLA is supported without a class token only")
    encoder = vit_fields(file, class_token=False)
    if encoder is None:
        return None
    name, options = encoder
    levels = file.count("neck.mla.channel_proj.{i}")
    return {
        "num_classes": file.shape("decode_head.conv_seg.weight")[0],
        "in_channels": image_channels(file),
        "encoder": name,
        "encoder_options": options,
        "blocks": chosen_blocks(file, _PUBLISHED, count=levels),
        "decoder": "mla",
        "channels": file.shape("neck.mla.channel_proj.0.conv.weight")[0],
        "branch_channels": file.shape("decode_head.up_convs.0.0.conv.weight")[0],
        "scale": file.setting("model.decode_head.up_scale", 4),
        "align_corners": file.setting("model.decode_head.align_corners", False),
        "aux": file.has("auxiliary_head.0.conv_seg"),
    }


def renames(config: SETRConfig) -> Renames:
    """See `Importer`."""
    if config.decoder != "mla":
        return []
    heads = tuple(reversed(config.blocks)) if config.aux else ()
    return [
        *vit_renames(),
        ("neck.norm.{i}", "decoder.norms.{i}"),
        ("neck.mla.channel_proj.{i}", "decoder.project.{i}"),
        ("neck.mla.feat_extract.{i}", "decoder.extract.{i}"),
        ("decode_head.up_convs.{i}.{j}", "decoder.branches.{i}.{j}"),
        ("decode_head.conv_seg", "classifier"),
        *(
            (f"auxiliary_head.{index}.conv_seg", f"aux_heads.z{block + 1}")
            for index, block in enumerate(heads)
        ),
    ]


def changes(config: SETRConfig) -> Mapping[str, tuple[Change, Change]]:
    """See `Importer`: ours has no position for a class token."""
    return {"encoder.pos_embed": (without_first, with_first)}


def without_first(positions: Tensor) -> Tensor:
    """Return positions (1, L, E) of (1, 1 + L, E)."""
    return positions[:, 1:]


def with_first(positions: Tensor) -> Tensor:
    """Return positions (1, 1 + L, E), the first zero, of (1, L, E)."""
    return F.pad(positions, (0, 0, 1, 0))


def constants(config: SETRConfig) -> Mapping[str, Tensor]:
    """See `Importer`."""
    return {_CLASS_TOKEN: torch.zeros(1, 1, FORMS[config.encoder.name].width)}


IMPORTER = Importer(
    source="mmseg",
    architecture="setr",
    recognise=recognise,
    renames=renames,
    changes=changes,
    dropped=(_CLASS_TOKEN,),
    constants=constants,
)
