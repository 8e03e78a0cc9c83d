"""ISANet of MMSegmentation: `ISAHead`."""

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
from segatlas.models.isanet import ISANetConfig

_HEAD = {"conv_seg", "in_conv", "global_relation", "local_relation", "out_conv"}


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    parts = {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")}
    if parts != _HEAD:
        return None
    encoder = encoder_fields(file, output_stride=8)
    if encoder is None:
        return None
    inner, channels, *_ = file.shape("decode_head.global_relation.key_project.0.conv.weight")
    return {
        **encoder,
        **head_fields(file),
        "channels": channels,
        "attention_channels": inner,
        "tile": tuple(file.setting("model.decode_head.down_factor", (8, 8))),
    }


def renames(config: ISANetConfig) -> Renames:
    """See `Importer`."""
    relations = []
    for theirs, ours in (("global_relation", "far"), ("local_relation", "near")):
        for part in ("query", "key", "value"):
            relations.append((f"decode_head.{theirs}.{part}_project", f"attention.{ours}.{part}"))
        relations.append((f"decode_head.{theirs}.output_project", f"attention.{ours}.out"))
    return [
        *encoder_renames(config.encoder.name),
        ("decode_head.in_conv", "before"),
        *relations,
        ("decode_head.out_conv", "fuse"),
        *CLASSIFIER,
        *FCN_AUX,
    ]


IMPORTER = Importer(
    source="mmseg",
    architecture="isanet",
    recognise=recognise,
    renames=renames,
    changes=encoder_changes,
    stacks=encoder_stacks,
    constants=encoder_constants,
)
