"""BeitForSemanticSegmentation: a UPerNet on BEiT, under the names of transformers 5 and of files before it.

Their `out_indices` count from 1 and begin with the patch embedding: 3 is the map after the second block, our 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.conversion.importers.vit import form_of, image_size_of_table, without_defaults
from segatlas.errors import WeightsError
from segatlas.models.upernet import UPerNetConfig

PATCHES = "beit.embeddings.patch_embeddings.projection"
_POSITIONS = "beit.embeddings.position_embeddings"
_BEFORE = 2
"""What they add to the index of a block."""

_PUBLISHED = {12: (1, 3, 5, 9), 24: (5, 9, 13, 21)}
"""Depth -> the blocks whose maps are taken: 3, 5, 7, 11 and 7, 11, 15, 23 as they count."""

_DEEPEST = max(_PUBLISHED)

_FIXED = {
    "hidden_act": "gelu",
    "auxiliary_num_convs": 1,
    "auxiliary_concat_input": False,
    "use_shared_relative_position_bias": False,
}
"""Setting -> the one value that ours has."""

_UNUSED = ("beit.layernorm", "beit.embeddings.mask_token")
"""A norm that no map goes through, and a token for masked patches."""


@dataclass(frozen=True, kw_only=True)
class BeitLayout:
    """The names of one version.

    layer: beginning of a block's names; below it queries, keys, values, the matrix behind attention (out), those of
        the feed-forward part (first, second), and the table of relative positions.
    pool, pooled: convolutions of pooled maps, and the one behind them.
    convolution, norm: what both are called in any convolution of the heads.
    neck: their names -> ours.
    """

    layer: str
    queries: str
    keys: str
    values: str
    out: str
    first: str
    second: str
    table: str
    pool: str
    pooled: str
    convolution: str
    norm: str
    neck: Renames

    @property
    def head(self) -> Renames:
        """The names of the convolutions of both heads."""
        places = [
            (self.pool, "ppm.pools.{i}"),
            (self.pooled, "ppm.fuse"),
            ("decode_head.lateral_convs.{i}", "lateral.{i}"),
            ("decode_head.fpn_convs.{i}", "output.{i}"),
            ("decode_head.fpn_bottleneck", "fuse"),
            ("auxiliary_head.convs.0", "aux_head.conv"),
        ]
        pairs = ((self.convolution, "conv"), (self.norm, "bn"))
        return [(f"{theirs}.{a}", f"{ours}.{b}") for theirs, ours in places for a, b in pairs]


NOW = BeitLayout(
    layer="beit.layers.{i}",
    queries="attention.q_proj",
    keys="attention.k_proj",
    values="attention.v_proj",
    out="attention.o_proj",
    first="mlp.fc1",
    second="mlp.fc2",
    table="relative_position_bias.relative_position_bias_table",
    pool="decode_head.psp_modules.blocks.{i}.conv",
    pooled="decode_head.psp_bottleneck",
    convolution="convolution",
    norm="normalization",
    neck=(
        ("fpn.fpn1.conv_transpose1", "neck.up4.0"),
        ("fpn.fpn1.normalization", "neck.up4.1"),
        ("fpn.fpn1.conv_transpose2", "neck.up4.3"),
        ("fpn.fpn2", "neck.up2"),
    ),
)

BEFORE_5 = BeitLayout(
    layer="beit.encoder.layer.{i}",
    queries="attention.attention.query",
    keys="attention.attention.key",
    values="attention.attention.value",
    out="attention.output.dense",
    first="intermediate.dense",
    second="output.dense",
    table="attention.attention.relative_position_bias.relative_position_bias_table",
    pool="decode_head.psp_modules.{i}.1",
    pooled="decode_head.bottleneck",
    convolution="conv",
    norm="bn",
    neck=(("fpn1", "neck.up4"), ("fpn2.0", "neck.up2")),
)


def importer(layout: BeitLayout) -> Importer:
    """Return the importer for the names of one version."""
    queries, keys, values = (f"{layout.layer}.{part}" for part in (layout.queries, layout.keys, layout.values))
    first_table = f"{layout.layer}.{layout.table}".replace("{i}", "0")

    def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
        if not file.has(PATCHES, layout.neck[0][0], "decode_head.classifier", queries.replace("{i}", "0")):
            return None
        encoder, options = _encoder(file, layout, first_table)
        has_aux = file.has("auxiliary_head.classifier")
        return {
            "num_classes": file.shape("decode_head.classifier.weight")[0],
            "in_channels": file.shape(f"{PATCHES}.weight")[1],
            "encoder": encoder,
            "encoder_options": options,
            "neck": "deconvolve",
            "levels": file.count("decode_head.lateral_convs.{i}") + 1,
            "channels": file.shape(f"decode_head.fpn_bottleneck.{layout.convolution}.weight")[0],
            "pool_scales": tuple(file.stated("pool_scales") or UPerNetConfig.pool_scales),
            "aux": has_aux,
            "aux_channels": file.shape("auxiliary_head.classifier.weight")[1] if has_aux else None,
            "aux_level": 2,
        }

    def renames(config: UPerNetConfig) -> Renames:
        options = config.encoder.options
        if not getattr(options, "relative_positions", False) or config.neck != "deconvolve":
            raise WeightsError(f"Hugging Face has no UPerNet with neck '{config.neck}' on '{config.encoder.name}'")
        if options.key_bias is not False or not options.qkv_bias or options.final_norm:
            raise WeightsError("Hugging Face's BEiT has biases of queries and values, none of keys, and no final norm")
        ours = "encoder.vit.blocks.{i}"
        return [
            (PATCHES, "encoder.vit.patch_embed.proj"),
            ("beit.embeddings.cls_token", "encoder.vit.cls_token"),
            (_POSITIONS, "encoder.vit.pos_embed"),
            (f"{queries}.bias", f"{ours}.attn.q_bias"),
            (f"{values}.bias", f"{ours}.attn.v_bias"),
            (f"{layout.layer}.{layout.table}", f"{ours}.attn.relative.table"),
            (f"{layout.layer}.{layout.out}", f"{ours}.attn.proj"),
            (f"{layout.layer}.layernorm_before", f"{ours}.norm1"),
            (f"{layout.layer}.layernorm_after", f"{ours}.norm2"),
            (f"{layout.layer}.{layout.first}", f"{ours}.mlp.fc1"),
            (f"{layout.layer}.{layout.second}", f"{ours}.mlp.fc2"),
            (f"{layout.layer}.lambda_1", f"{ours}.ls1.gamma"),
            (f"{layout.layer}.lambda_2", f"{ours}.ls2.gamma"),
            *layout.neck,
            *layout.head,
            ("decode_head.classifier", "classifier"),
            ("auxiliary_head.classifier", "aux_head.classifier"),
        ]

    def stacks(config: UPerNetConfig) -> Sequence[Stack]:
        theirs = {f"{name}.weight": 1 for name in (queries, keys, values)}
        return [Stack(theirs=theirs, ours={"encoder.vit.blocks.{i}.attn.qkv.weight": 1})]

    return Importer(
        source="hf",
        architecture="upernet",
        recognise=recognise,
        renames=renames,
        stacks=stacks,
        dropped=(*_UNUSED, *(_index(layout, block) for block in range(_DEEPEST))),
    )


def _index(layout: BeitLayout, block: int) -> str:
    """Return the name of a block's rows of its table, which old files hold and ours computes."""
    return f"{layout.layer}.{layout.table}".replace("{i}", str(block)).replace("bias_table", "index")


def _encoder(file: ForeignWeights, layout: BeitLayout, table: str) -> tuple[str, dict[str, Any]]:
    """Return the encoder's name and its options."""
    for setting, ours in _FIXED.items():
        if (stated := file.stated(setting)) not in (None, ours):
            raise WeightsError(f"{setting} = {stated}: only {ours} is supported")
    if table not in file.tensors:
        raise WeightsError(f"no {table}: only a BEiT with relative positions of each block is supported")
    width, _, patch_size, _ = file.shape(f"{PATCHES}.weight")
    hidden = file.shape(f"{layout.layer.replace('{i}', '0')}.{layout.first}.weight")[0]
    name, form = form_of(file, width=width, hidden=hidden, heads="num_attention_heads")
    depth, has_factors = file.count(layout.layer), file.has(f"{layout.layer.replace('{i}', '0')}.lambda_1")
    options = {
        "depth": depth,
        "patch_size": patch_size,
        "image_size": image_size_of_table(file.shape(table)[0], patch_size, tensor=table),
        "relative_positions": True,
        "absolute_positions": None if file.has(_POSITIONS) else False,
        "key_bias": False,
        "final_norm": False,
        "position_antialias": False,
        "layer_scale": (file.stated("layer_scale_init_value") or 0.1) if has_factors else 0.0,
        "drop_path": file.stated("drop_path_rate") or 0.0,
        "norm_eps": file.setting("layer_norm_eps", 1e-12),
    }
    return name, {**without_defaults(options, form), "at": _blocks(file, depth)}


def _blocks(file: ForeignWeights, depth: int) -> tuple[int, ...]:
    """Return the blocks whose maps are taken, as we count them."""
    usual = _PUBLISHED.get(depth, tuple(depth * (index + 1) // 4 - 1 for index in range(4)))
    stated = file.setting("out_indices", [block + _BEFORE for block in usual])
    blocks = tuple(index - _BEFORE for index in stated)
    if len(blocks) != 4 or not all(0 <= block < depth for block in blocks):
        last = depth + _BEFORE - 1
        raise WeightsError(f"out_indices = {list(stated)}: expected four numbers from {_BEFORE} to {last}")
    return blocks
