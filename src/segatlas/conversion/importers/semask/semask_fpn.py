"""SeMask-FPN as its authors published it: their names of a Swin Transformer, semantic layers within its stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from segatlas.build.swin_weights import side_of
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.encoders.swin import MLP_RATIO, PATCH_SIZE, SIZES, STRIDES, SwinOptions, distances
from segatlas.errors import WeightsError
from segatlas.models.semask_fpn import SeMaskFPNConfig

_STAGES = range(len(STRIDES))
_SEMANTIC = "backbone.layers.{s}.semantic_layer"
_ATTENTION = f"{_SEMANTIC}.class_injection.0"
_TABLE = "backbone.layers.{s}.blocks.0.attn.relative_position_bias_table"
_FIXED = {"mlp_ratio": MLP_RATIO, "patch_size": PATCH_SIZE, "ape": False, "patch_norm": True, "qkv_bias": True}


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`.

    Raises:
        WeightsError: a form that ours does not have, or classes that do not agree.
    """
    scores, tables = f"{_at(_ATTENTION, 0)}.mlp_cls_q.weight", [_at(_TABLE, stage) for stage in _STAGES]
    if not file.has(scores, "decode_head.scale_heads.0.0.conv.weight", "decode_head.conv_seg.weight", *tables):
        return None
    classes, found = file.shape("decode_head.conv_seg.weight")[0], file.shape(scores)[0]
    if found != classes:
        raise WeightsError(f"the semantic layers have {found} classes, the head {classes}: expected as many")
    width = file.shape("backbone.patch_embed.proj.weight")[0]
    depths = tuple(file.count(f"backbone.layers.{stage}.blocks.{{i}}") for stage in _STAGES)
    heads = tuple(file.shape(table)[1] for table in tables)
    known = {(size.width, size.depths, size.heads): name for name, size in SIZES.items()}
    name = known.get((width, depths, heads))  # type: ignore[arg-type]
    if name is None:
        told = f"width {width} with {list(depths)} blocks and {list(heads)} heads"
        raise WeightsError(f"a Swin Transformer of {told} is none of the published")
    window = side_of(file.shape(tables[0])[0], name=tables[0])
    for key, ours in {**_FIXED, "sem_window_size": window, "num_sem_blocks": [1] * len(STRIDES)}.items():
        stated = file.stated(f"model.backbone.{key}")
        if stated not in (None, ours):
            raise WeightsError(f"model.backbone.{key} = {stated}: only {ours} is supported")
    options = {"window": window, "drop_path": file.stated("model.backbone.drop_path_rate")}
    default = SwinOptions()
    given = {key: value for key, value in options.items() if value not in (None, getattr(default, key))}
    return {
        "num_classes": classes,
        "in_channels": file.shape("backbone.patch_embed.proj.weight")[1],
        "encoder": name,
        "encoder_options": given,
        "channels": file.shape("decode_head.scale_heads.0.0.conv.weight")[0],
    }


def _at(pattern: str, stage: int) -> str:
    return pattern.replace("{s}", str(stage))


def renames(config: SeMaskFPNConfig) -> Renames:
    """See `Importer`. In the head, every second entry of a level is an upsampling, which has no parameters."""
    if config.encoder.name not in SIZES or config.windowed is not None:
        raise WeightsError("the authors' SeMask has a Swin Transformer, and windows as published")
    attention = (("mlp_cls_q", "query"), ("mlp_cls_k", "key"), ("mlp_v", "value"), ("mlp_res", "proj"), ("gamma",) * 2)
    return [
        ("backbone.patch_embed", "encoder.patch_embed"),
        ("backbone.layers.{s}.blocks", "encoder.layers.{s}.blocks"),
        *(
            (f"backbone.layers.{stage - 1}.downsample", f"encoder.layers.{stage}.downsample")
            for stage in _STAGES
            if stage
        ),
        *((f"backbone.norm{stage}", f"encoder.norm{stage}") for stage in _STAGES),
        (f"{_SEMANTIC}.norm1", "semantic.{s}.norm"),
        *((f"{_ATTENTION}.{theirs}", f"semantic.{{s}}.attn.{ours}") for theirs, ours in attention),
        *((f"decode_head.scale_heads.{{i}}.{2 * k}", f"head.levels.{{i}}.{k}") for k in range(len(STRIDES) - 1)),
        ("decode_head.conv_seg", "classifier"),
    ]


def constants(config: SeMaskFPNConfig) -> Mapping[str, Tensor]:
    """See `Importer`: the row of the table for each pair of tokens, computed here."""
    index = distances(config.encoder.options.window, torch.device("cpu"))
    return {
        f"backbone.layers.{stage}.blocks.{block}.attn.relative_position_index": index
        for stage, depth in enumerate(SIZES[config.encoder.name].depths)
        for block in range(depth)
    }


IMPORTER = Importer(
    source="semask", architecture="semask_fpn", recognise=recognise, renames=renames, constants=constants
)
