"""Swin Transformers below heads of Hugging Face, as transformers 5 names their tensors, and as files have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segatlas.build.swin_weights import side_of
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.hf.backbones import BackboneNames
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.encoders.spec import EncoderSpec
from segatlas.encoders.swin import MLP_RATIO, PATCH_SIZE, SIZES, STRIDES, SwinOptions, distances
from segatlas.errors import WeightsError

TABLE = "attention.relative_position_bias.relative_position_bias_table"
TABLE_BEFORE_5 = "attention.self.relative_position_bias_table"
"""What the table of relative positions is called below a block, in either version."""

_MERGED = range(1, len(STRIDES))
_FIXED = {
    "mlp_ratio": MLP_RATIO,
    "patch_size": PATCH_SIZE,
    "qkv_bias": True,
    "hidden_act": "gelu",
    "use_absolute_embeddings": False,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
"""Key of `backbone_config` -> the one value that ours has."""


def swin_fields(file: ForeignWeights, root: str, table: str) -> Mapping[str, Any] | None:
    """Return the config fields of the encoder.

    Args:
        file: the file.
        root: what all names of the backbone begin with.
        table: their name of a block's table of relative positions, after the block's.
    """
    projection = f"{root}.embeddings.patch_embeddings.projection.weight"
    layer = f"{root}.encoder.layers.{{s}}.blocks"
    layers = [layer.replace("{s}", str(stage)) for stage in range(len(STRIDES))]
    tables = [f"{blocks}.0.{table}" for blocks in layers]
    if not file.has(projection, *tables):
        return None
    width, depths = file.shape(projection)[0], tuple(file.count(f"{blocks}.{{i}}") for blocks in layers)
    name = next((name for name, size in SIZES.items() if (size.width, size.depths) == (width, depths)), None)
    if name is None:
        raise WeightsError(f"a Swin Transformer of width {width} with {list(depths)} blocks is none of the published")
    heads = tuple(file.shape(one)[1] for one in tables)
    if heads != SIZES[name].heads:
        raise WeightsError(f"{name} with {list(heads)} attention heads: only {list(SIZES[name].heads)} is supported")
    for key, ours in _FIXED.items():
        stated = file.stated(f"backbone_config.{key}")
        if stated not in (None, ours):
            raise WeightsError(f"backbone_config.{key} = {stated}: only {ours} is supported")
    options = {
        "window": side_of(file.shape(tables[0])[0], name=tables[0]),
        "drop_path": file.stated("backbone_config.drop_path_rate"),
    }
    default = SwinOptions()
    given = {key: value for key, value in options.items() if value not in (None, getattr(default, key))}
    return {"encoder": name, "encoder_options": given, "in_channels": file.shape(projection)[1]}


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `BackboneNames`."""
    return swin_fields(file, "backbone.swin", TABLE)


def block_renames(root: str) -> Renames:
    """Return the table of the blocks of a Swin Transformer whose names begin so, as of transformers 5."""
    block, ours = f"{root}.encoder.layers.{{s}}.blocks.{{i}}", "encoder.layers.{s}.blocks.{i}"
    return [
        (f"{block}.attention.o_proj", f"{ours}.attn.proj"),
        (f"{block}.attention.relative_position_bias", f"{ours}.attn"),
        (f"{block}.layernorm_before", f"{ours}.norm1"),
        (f"{block}.layernorm_after", f"{ours}.norm2"),
        (f"{block}.mlp", f"{ours}.mlp"),
    ]


def block_renames_before_5(root: str) -> Renames:
    """Return the same as of transformers up to 4."""
    block, ours = f"{root}.encoder.layers.{{s}}.blocks.{{i}}", "encoder.layers.{s}.blocks.{i}"
    return [
        (
            f"{block}.attention.self.relative_position_bias_table",
            f"{ours}.attn.relative_position_bias_table",
        ),
        (f"{block}.attention.output.dense", f"{ours}.attn.proj"),
        (f"{block}.layernorm_before", f"{ours}.norm1"),
        (f"{block}.layernorm_after", f"{ours}.norm2"),
        (f"{block}.intermediate.dense", f"{ours}.mlp.fc1"),
        (f"{block}.output.dense", f"{ours}.mlp.fc2"),
    ]


def other_renames(root: str, norms: Sequence[str]) -> Renames:
    """Return the table of what is outside of the blocks; `norms` are their names of those of the maps."""
    merging = [
        (f"{root}.encoder.layers.{stage - 1}.downsample", f"encoder.layers.{stage}.downsample") for stage in _MERGED
    ]
    embedding = [
        (f"{root}.embeddings.patch_embeddings.projection", "encoder.patch_embed.proj"),
        (f"{root}.embeddings.norm", "encoder.patch_embed.norm"),
    ]
    return [*embedding, *merging, *((name, f"encoder.norm{stage}") for stage, name in enumerate(norms))]


def block_stack(root: str) -> Stack:
    """Return where queries, keys and values of a block are, three matrices there, as of transformers 5."""
    block = f"{root}.encoder.layers.{{s}}.blocks.{{i}}.attention"
    return _stack([f"{block}.{part}_proj" for part in ("q", "k", "v")])


def block_stack_before_5(root: str) -> Stack:
    """Return the same as of transformers up to 4."""
    attention = f"{root}.encoder.layers.{{s}}.blocks.{{i}}.attention.self"
    return _stack([f"{attention}.{part}" for part in ("query", "key", "value")])


def _stack(parts: Sequence[str]) -> Stack:
    return Stack(theirs=dict.fromkeys(parts, 1), ours={"encoder.layers.{s}.blocks.{i}.attn.qkv": 1})


def index_before_5(root: str) -> tuple[str, ...]:
    """Return the names of which row of its table each pair of tokens has: computed here, stored in their files."""
    return tuple(
        f"{root}.encoder.layers.{stage}.blocks.{block}.attention.self.relative_position_index"
        for stage in range(len(STRIDES))
        for block in range(max(size.depths[stage] for size in SIZES.values()))
    )


def indices_before_5(root: str, encoder: EncoderSpec) -> Mapping[str, Tensor]:
    """Return these of an encoder by name."""
    index = distances(encoder.options.window, torch.device("cpu"))
    return {
        f"{root}.encoder.layers.{stage}.blocks.{block}.attention.self.relative_position_index": index
        for stage, depth in enumerate(SIZES[encoder.name].depths)
        for block in range(depth)
    }


def unused_norm(name: str, encoder: EncoderSpec) -> Mapping[str, Tensor]:
    """Return a norm that no map goes through and the library has all the same."""
    width = SIZES[encoder.name].width * 2 ** (len(STRIDES) - 1)
    return {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}


_NORMS = [f"backbone.hidden_states_norms.stage{stage + 1}" for stage in range(len(STRIDES))]


def renames(encoder: EncoderSpec) -> Renames:
    """See `BackboneNames`."""
    return [*block_renames("backbone.swin"), *other_renames("backbone.swin", _NORMS)]


def stacks(encoder: EncoderSpec) -> Sequence[Stack]:
    """See `BackboneNames`."""
    return [block_stack("backbone.swin")]


def constants(encoder: EncoderSpec) -> Mapping[str, Tensor]:
    """See `BackboneNames`."""
    return unused_norm("backbone.swin.layernorm", encoder)


def recognise_before_5(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `BackboneNames`."""
    return swin_fields(file, "backbone", TABLE_BEFORE_5)


def renames_before_5(encoder: EncoderSpec) -> Renames:
    """See `BackboneNames`."""
    return [*block_renames_before_5("backbone"), *other_renames("backbone", _NORMS)]


def stacks_before_5(encoder: EncoderSpec) -> Sequence[Stack]:
    """See `BackboneNames`."""
    return [block_stack_before_5("backbone")]


INDEX_BEFORE_5 = index_before_5("backbone")

BACKBONE = BackboneNames(
    encoders=tuple(SIZES), recognise=recognise, renames=renames, stacks=stacks, constants=constants
)

BEFORE_5 = BackboneNames(
    encoders=tuple(SIZES),
    recognise=recognise_before_5,
    renames=renames_before_5,
    stacks=stacks_before_5,
    constants=constants,
)
