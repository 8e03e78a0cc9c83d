"""MMSegmentation's `SwinTransformer`: names of its own, and squares laid out channel by channel in patch merging."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from segatlas.build.swin_weights import as_unfolded, from_unfolded, side_of
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Change
from segatlas.conversion.importers.mmseg.backbones import Backbone
from segatlas.conversion.importers.renames import Renames
from segatlas.encoders.spec import EncoderSpec
from segatlas.encoders.swin import MLP_RATIO, PATCH_SIZE, SIZES, STRIDES, SwinOptions, distances
from segatlas.errors import WeightsError

_PROJECTION = "backbone.patch_embed.projection.weight"
_TABLE = "attn.w_msa.relative_position_bias_table"
_MERGED = range(1, len(STRIDES))
"""Stages that begin with patch merging, which is the last part of the stage before in their names."""


def recognise(file: ForeignWeights, output_stride: int) -> Mapping[str, Any] | None:
    """See `Backbone`. The strides are its own."""
    first = f"backbone.stages.0.blocks.0.{_TABLE}"
    if not file.has(first, _PROJECTION):
        return None
    width = file.shape(_PROJECTION)[0]
    depths = tuple(file.count(f"backbone.stages.{stage}.blocks.{{i}}") for stage in range(len(STRIDES)))
    name = next((name for name, size in SIZES.items() if (size.width, size.depths) == (width, depths)), None)
    if name is None:
        raise WeightsError(f"a Swin Transformer of width {width} with {list(depths)} blocks is none of the published")
    heads = tuple(file.shape(f"backbone.stages.{stage}.blocks.0.{_TABLE}")[1] for stage in range(len(STRIDES)))
    if heads != SIZES[name].heads:
        raise WeightsError(f"{name} with {list(heads)} attention heads: only {list(SIZES[name].heads)} is supported")
    for path, ours in (("mlp_ratio", MLP_RATIO), ("patch_size", PATCH_SIZE), ("use_abs_pos_embed", False)):
        stated = file.stated(f"model.backbone.{path}")
        if stated not in (None, ours):
            raise WeightsError(f"model.backbone.{path} = {stated}: only {ours} is supported")
    options = {
        "window": side_of(file.shape(first)[0], name=first),
        "drop_path": file.stated("model.backbone.drop_path_rate"),
        "norm_eps": (file.stated("model.backbone.norm_cfg") or {}).get("eps"),
    }
    default = SwinOptions()
    given = {key: value for key, value in options.items() if value not in (None, getattr(default, key))}
    return {"encoder": name, "output_stride": None, "encoder_options": given}


def renames(encoder: str) -> Renames:
    """See `Backbone`."""
    block, ours = "backbone.stages.{s}.blocks.{i}", "encoder.layers.{s}.blocks.{i}"
    return [
        ("backbone.patch_embed.projection", "encoder.patch_embed.proj"),
        ("backbone.patch_embed.norm", "encoder.patch_embed.norm"),
        (f"{block}.attn.w_msa", f"{ours}.attn"),
        (f"{block}.ffn.layers.0.0", f"{ours}.mlp.fc1"),
        (f"{block}.ffn.layers.1", f"{ours}.mlp.fc2"),
        (block, ours),
        *((f"backbone.stages.{stage - 1}.downsample", f"encoder.layers.{stage}.downsample") for stage in _MERGED),
        *((f"backbone.norm{stage}", f"encoder.norm{stage}") for stage in range(len(STRIDES))),
    ]


def changes(encoder: EncoderSpec) -> Mapping[str, tuple[Change, Change]]:
    """See `Backbone`: what merging sees stands in another order."""
    names = ("norm.weight", "norm.bias", "reduction.weight")
    return {
        f"encoder.layers.{stage}.downsample.{name}": (from_unfolded, as_unfolded) for stage in _MERGED for name in names
    }


def constants(encoder: EncoderSpec) -> Mapping[str, Tensor]:
    """See `Backbone`: the row of the table for each pair of tokens, computed here."""
    index = distances(encoder.options.window, torch.device("cpu"))
    return {
        f"backbone.stages.{stage}.blocks.{block}.attn.w_msa.relative_position_index": index
        for stage, depth in enumerate(SIZES[encoder.name].depths)
        for block in range(depth)
    }


BACKBONE = Backbone(
    module="segatlas.encoders.swin", recognise=recognise, renames=renames, changes=changes, constants=constants
)
