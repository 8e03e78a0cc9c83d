"""MMSegmentation's plain transformers: `VisionTransformer`, and `MAE` and `BEiT` with their relative positions.

The former keeps queries, keys and values in `in_proj_weight`, the latter in `qkv.weight`; both lie one below the other,
as ours do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.backbones import Backbone
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.vit import image_size_of_table
from segatlas.encoders.spec import EncoderSpec
from segatlas.encoders.vit import FORMS, VisionTransformerForm, VisionTransformerOptions, relations
from segatlas.errors import WeightsError

_BY_WIDTH = {form.width: name for name, form in FORMS.items() if name.startswith("vit_")}
_PUBLISHED = {12: (3, 5, 7, 11), 24: (7, 11, 15, 23)}
"""Depth of a `MAE` or `BEiT` -> the blocks whose maps are taken."""

_TABLE = "backbone.layers.0.attn.relative_position_bias_table"
_TWO_BIASES = "backbone.layers.0.attn.q_bias"
_DEEPEST = 48

INDEX = tuple(f"backbone.layers.{block}.attn.relative_position_index" for block in range(_DEEPEST))
"""Which row of a table each pair of tokens has: computed here, stored there."""


def vit_fields(file: ForeignWeights, *, class_token: bool = True) -> tuple[str, dict[str, Any]] | None:
    """Return our name of the plain transformer in a file, and its options; None where there is none.

    Args:
        file: the file, which holds a class token in any case.
        class_token: it is among the tokens.

    Raises:
        WeightsError: settings state a form that ours does not have.
    """
    kernel = "backbone.patch_embed.projection.weight"
    is_vit = file.has("backbone.layers.0.attn.attn.in_proj_weight")
    has_positions = file.has("backbone.pos_embed")
    if not file.has(kernel, "backbone.cls_token") or not ((is_vit and has_positions) or file.has(_TABLE)):
        return None
    width, _, patch_size, _ = file.shape(kernel)
    name = _BY_WIDTH.get(width)
    if name is None:
        return None
    form = FORMS[name]
    hidden = file.shape("backbone.layers.0.ffn.layers.0.0.bias")[0]
    heads = file.stated("model.backbone.num_heads")
    if hidden != 4 * width or heads not in (None, form.heads):
        told = f"{heads or form.heads} heads and {hidden} channels between"
        raise WeightsError(f"a plain transformer of width {width} with {told}; known are {form.heads} and {4 * width}")
    if file.stated("model.backbone.with_cls_token") not in (None, class_token):
        raise WeightsError(f"model.backbone.with_cls_token = {not class_token}: this network has the other form only")
    has_norm = file.has("backbone.ln1")
    options: dict[str, Any] = {
        "depth": file.count("backbone.layers.{i}"),
        "patch_size": patch_size,
        "image_size": _image_size(file, patch_size),
        "drop_path": file.stated("model.backbone.drop_path_rate") or 0.0,
        "dropout": file.stated("model.backbone.drop_rate") or 0.0,
        "class_token": class_token,
        "patch_bias": file.has("backbone.patch_embed.projection.bias"),
        "pre_norm": file.has("backbone.ln_pre"),
        "final_norm": has_norm,
        "norm_last_only": has_norm,
        "norm_eps": _epsilon(file),
        "position_antialias": False,
    }
    if is_vit:
        options["qkv_bias"] = file.has("backbone.layers.0.attn.attn.in_proj_bias")
        options["position_resize"] = file.stated("model.backbone.interpolate_mode") or "bicubic"
    else:
        has_two = file.has(_TWO_BIASES)
        options |= {"qkv_bias": has_two or file.has("backbone.layers.0.attn.qkv.bias"), "relative_positions": True}
        options["layer_scale"] = file.stated("model.backbone.init_values") or 1.0
        if has_two:
            options["key_bias"] = False
        if not has_positions:
            options["absolute_positions"] = False
    return name, _without_defaults(options, form)


def _without_defaults(options: dict[str, Any], form: VisionTransformerForm) -> dict[str, Any]:
    """Return those options that say something else than the encoder's name does."""
    own = VisionTransformerOptions()
    default = {key: getattr(form, key, None) if getattr(own, key) is None else getattr(own, key) for key in options}
    return {key: value for key, value in options.items() if value != default[key]}


def _image_size(file: ForeignWeights, patch_size: int) -> tuple[int, int]:
    """Return height and width of the images that positions are for: as stated, else those of a square grid."""
    if not file.has("backbone.pos_embed"):
        return image_size_of_table(file.shape(_TABLE)[0], patch_size, tensor=_TABLE)
    cells = file.shape("backbone.pos_embed")[1] - 1
    stated = file.stated("model.backbone.img_size")
    if stated is not None:
        height, width = (stated, stated) if isinstance(stated, int) else (stated * 2)[:2]
        if (height // patch_size) * (width // patch_size) == cells:
            return height, width
    side = math.isqrt(max(cells, 0))
    if side * side != cells:
        raise WeightsError(
            f"backbone.pos_embed has {cells + 1} rows: expected those of a square grid and a class token"
        )
    return side * patch_size, side * patch_size


def _epsilon(file: ForeignWeights) -> float:
    """Return the epsilon of the norms: stated, that of the library where it is not, published where nothing is."""
    if file.stated("model.backbone") is None:
        file.note("norm_eps = 1e-06 (published default; the weights do not tell)")
        return 1e-6
    return float((file.stated("model.backbone.norm_cfg") or {}).get("eps", 1e-5))


def recognise(file: ForeignWeights, output_stride: int) -> Mapping[str, Any] | None:
    """See `Backbone`. A plain transformer has one stride."""
    found = vit_fields(file)
    if found is None:
        return None
    name, options = found
    published = _PUBLISHED if options.get("relative_positions") else {}
    options["at"] = chosen_blocks(file, published, count=4)
    return {"encoder": name, "output_stride": None, "encoder_options": options}


def chosen_blocks(file: ForeignWeights, published: Mapping[int, tuple[int, ...]], *, count: int) -> tuple[int, ...]:
    """Return the blocks whose tokens are taken: as stated, else as published for the depth, else evenly spread.

    Args:
        file: the file.
        published: depth -> blocks.
        count: how many there are, where settings do not tell.
    """
    depth = file.count("backbone.layers.{i}")
    usual = published.get(depth, ())
    if len(usual) != count:
        usual = tuple(depth * (index + 1) // count - 1 for index in range(count))
    stated = file.setting("model.backbone.out_indices", usual)
    blocks = (stated,) if isinstance(stated, int) else tuple(stated)
    return tuple(block % depth for block in blocks)


def vit_renames(ours: str = "encoder") -> Renames:
    """Return the table of a plain transformer; `ours` is what ours is called in the network."""
    return [
        ("backbone.patch_embed.projection", f"{ours}.patch_embed.proj"),
        *block_renames("backbone.layers.{i}", f"{ours}.blocks.{{i}}"),
        ("backbone.ln_pre", f"{ours}.norm_pre"),
        ("backbone.ln1", f"{ours}.norm"),
        ("backbone.cls_token", f"{ours}.cls_token"),
        ("backbone.pos_embed", f"{ours}.pos_embed"),
    ]


def block_renames(theirs: str, ours: str) -> Renames:
    """Return the table of transformer blocks, given what begins their names and ours."""
    return [
        (f"{theirs}.ln1", f"{ours}.norm1"),
        (f"{theirs}.ln2", f"{ours}.norm2"),
        (f"{theirs}.attn.attn.in_proj_weight", f"{ours}.attn.qkv.weight"),
        (f"{theirs}.attn.attn.in_proj_bias", f"{ours}.attn.qkv.bias"),
        (f"{theirs}.attn.attn.out_proj", f"{ours}.attn.proj"),
        (f"{theirs}.ffn.layers.0.0", f"{ours}.mlp.fc1"),
        (f"{theirs}.ffn.layers.1", f"{ours}.mlp.fc2"),
    ]


def mae_renames(ours: str = "encoder") -> Renames:
    """Return the table of `MAE` and `BEiT`, as `vit_renames`."""
    theirs, block = "backbone.layers.{i}", f"{ours}.blocks.{{i}}"
    return [
        (f"{theirs}.attn.qkv", f"{block}.attn.qkv"),
        (f"{theirs}.attn.proj", f"{block}.attn.proj"),
        *((f"{theirs}.attn.{bias}", f"{block}.attn.{bias}") for bias in ("q_bias", "v_bias")),
        (f"{theirs}.attn.relative_position_bias_table", f"{block}.attn.relative.table"),
        (f"{theirs}.gamma_1", f"{block}.ls1.gamma"),
        (f"{theirs}.gamma_2", f"{block}.ls2.gamma"),
        *(pair for pair in vit_renames(ours) if "attn.attn" not in pair[0]),
    ]


def constants(encoder: EncoderSpec) -> dict[str, Tensor]:
    """See `Backbone`: what `MAE` stores of each block besides its table, {} without relative positions."""
    options, form = encoder.options, FORMS[encoder.name]
    if not options.relative_positions:
        return {}
    height, width = options.image_size or form.image_size
    patch_size = options.patch_size or form.patch_size
    index = relations((height // patch_size, width // patch_size), torch.device("cpu"))
    return {INDEX[block]: index for block in range(options.depth or form.depth)}


def renames(encoder: str) -> Renames:
    """See `Backbone`. Which table a network has is told by its options: `upernet.py` puts MAE's before this one."""
    return vit_renames("encoder.vit")


BACKBONE = Backbone(module="segatlas.encoders.vit_maps", recognise=recognise, renames=renames, constants=constants)
