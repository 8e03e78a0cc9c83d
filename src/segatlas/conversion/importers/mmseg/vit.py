"""MMSegmentation's plain transformers: `VisionTransformer`, and `MAE` with its relative positions.

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
from segatlas.encoders.vit import FORMS, VisionTransformerForm, VisionTransformerOptions, relations
from segatlas.errors import WeightsError

_BY_WIDTH = {form.width: name for name, form in FORMS.items() if name.startswith("vit_")}
_MAE_BLOCKS = (3, 5, 7, 11)
_TABLE = "backbone.layers.0.attn.relative_position_bias_table"
_DEEPEST = 48

INDEX = tuple(f"backbone.layers.{block}.attn.relative_position_index" for block in range(_DEEPEST))
"""Which row of a table each pair of tokens has: computed here, stored there."""


def vit_fields(file: ForeignWeights) -> tuple[str, dict[str, Any]] | None:
    """Return our name of the plain transformer in a file, and its options; None where there is none.

    Raises:
        WeightsError: settings state a form that ours does not have.
    """
    kernel = "backbone.patch_embed.projection.weight"
    is_vit = file.has("backbone.layers.0.attn.attn.in_proj_weight")
    if not file.has(kernel, "backbone.cls_token", "backbone.pos_embed") or not (is_vit or file.has(_TABLE)):
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
    if file.stated("model.backbone.with_cls_token") is False:
        raise WeightsError("model.backbone.with_cls_token = False: only transformers with a class token are supported")
    has_norm = file.has("backbone.ln1")
    options: dict[str, Any] = {
        "depth": file.count("backbone.layers.{i}"),
        "patch_size": patch_size,
        "image_size": _image_size(file, patch_size),
        "drop_path": file.stated("model.backbone.drop_path_rate") or 0.0,
        "dropout": file.stated("model.backbone.drop_rate") or 0.0,
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
        options |= {"qkv_bias": file.has("backbone.layers.0.attn.qkv.bias"), "relative_positions": True}
        options["layer_scale"] = 1.0
    return name, _without_defaults(options, form)


def _without_defaults(options: dict[str, Any], form: VisionTransformerForm) -> dict[str, Any]:
    """Return those options that say something else than the encoder's name does."""
    own = VisionTransformerOptions()
    default = {key: getattr(form, key, None) if getattr(own, key) is None else getattr(own, key) for key in options}
    return {key: value for key, value in options.items() if value != default[key]}


def _image_size(file: ForeignWeights, patch_size: int) -> tuple[int, int]:
    """Return height and width of the images that positions are for: as stated, else those of a square grid."""
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
    depth = options.get("depth", FORMS[name].depth)
    is_mae = bool(options.get("relative_positions")) and depth == 1 + _MAE_BLOCKS[-1]
    published = _MAE_BLOCKS if is_mae else tuple(depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4))
    stated = file.setting("model.backbone.out_indices", published)
    options["at"] = (stated,) if isinstance(stated, int) else tuple(stated)
    return {"encoder": name, "output_stride": None, "encoder_options": options}


def vit_renames(ours: str = "encoder") -> Renames:
    """Return the table of a plain transformer; `ours` is what ours is called in the network."""
    theirs, block = "backbone.layers.{i}", f"{ours}.blocks.{{i}}"
    return [
        ("backbone.patch_embed.projection", f"{ours}.patch_embed.proj"),
        (f"{theirs}.ln1", f"{block}.norm1"),
        (f"{theirs}.ln2", f"{block}.norm2"),
        (f"{theirs}.attn.attn.in_proj_weight", f"{block}.attn.qkv.weight"),
        (f"{theirs}.attn.attn.in_proj_bias", f"{block}.attn.qkv.bias"),
        (f"{theirs}.attn.attn.out_proj", f"{block}.attn.proj"),
        (f"{theirs}.ffn.layers.0.0", f"{block}.mlp.fc1"),
        (f"{theirs}.ffn.layers.1", f"{block}.mlp.fc2"),
        ("backbone.ln_pre", f"{ours}.norm_pre"),
        ("backbone.ln1", f"{ours}.norm"),
        ("backbone.cls_token", f"{ours}.cls_token"),
        ("backbone.pos_embed", f"{ours}.pos_embed"),
    ]


def mae_renames(ours: str = "encoder") -> Renames:
    """Return the table of `MAE`, as `vit_renames`."""
    theirs, block = "backbone.layers.{i}", f"{ours}.blocks.{{i}}"
    return [
        (f"{theirs}.attn.qkv", f"{block}.attn.qkv"),
        (f"{theirs}.attn.proj", f"{block}.attn.proj"),
        (f"{theirs}.attn.relative_position_bias_table", f"{block}.attn.relative.table"),
        (f"{theirs}.gamma_1", f"{block}.ls1.gamma"),
        (f"{theirs}.gamma_2", f"{block}.ls2.gamma"),
        *(pair for pair in vit_renames(ours) if "attn.attn" not in pair[0]),
    ]


def index_tensors(options: VisionTransformerOptions, form: VisionTransformerForm) -> dict[str, Tensor]:
    """Return what `MAE` stores of each block besides its table, {} without relative positions."""
    if not options.relative_positions:
        return {}
    height, width = options.image_size or form.image_size
    patch_size = options.patch_size or form.patch_size
    index = relations((height // patch_size, width // patch_size), torch.device("cpu"))
    return {INDEX[block]: index for block in range(options.depth or form.depth)}


def renames(encoder: str) -> Renames:
    """See `Backbone`. Which table a network has is told by its options: `upernet.py` puts MAE's before this one."""
    return vit_renames("encoder.vit")


BACKBONE = Backbone(module="segatlas.encoders.vit_maps", recognise=recognise, renames=renames)
