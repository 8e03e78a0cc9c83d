"""EomtDinov3ForUniversalSegmentation: EoMT on DINOv3. Positions turn queries and keys, and keys have no bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.hf.eomt import (
    GATE,
    HEAD,
    LAYER,
    card_fields,
    constants,
    head_fields,
    options_told,
    require_form,
)
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.conversion.importers.vit import dino_options
from segatlas.encoders.vit import FORMS, ROTARY_BASE
from segatlas.errors import WeightsError
from segatlas.models.eomt import EoMTConfig

_PATCHES = "embeddings.patch_embeddings"


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if f"{_PATCHES}.weight" not in file.tensors or not file.has("query", "upscale_block", "mask_head"):
        return None
    if f"{LAYER}.attention.k_proj.bias".replace("{i}", "0") in file.tensors:
        raise WeightsError("keys have biases: only a DINOv3 without them is supported")
    base = file.stated("rope_parameters.rope_theta")
    if base not in (None, ROTARY_BASE):
        raise WeightsError(f"rope_parameters.rope_theta = {base}: only {ROTARY_BASE} is supported")
    width, channels, patch, _ = file.shape(f"{_PATCHES}.weight")
    side = file.stated("image_size")
    told = {
        "depth": file.count(LAYER),
        "patch_size": patch,
        "layer_scale": file.stated("layerscale_value") or 1e-5,
        **({"image_size": (side, side)} if isinstance(side, int) else {}),
        **options_told(file),
    }
    gated = file.has("layers.0.mlp.gate_proj")
    hidden = file.shape("layers.0.mlp.up_proj.weight")[0]
    name, options = dino_options(
        file, "dinov3", width=width, hidden=hidden, gated=gated, heads="num_attention_heads", told=told
    )
    return {"in_channels": channels, "encoder": name, "encoder_options": options, **head_fields(file, patch)}


def renames(config: EoMTConfig) -> Renames:
    """See `Importer`."""
    require_form(config, rotary=True)
    block = "encoder.blocks.{i}"
    first = () if FORMS[config.encoder.name].gated else ((f"{LAYER}.mlp.up_proj", f"{block}.mlp.fc1"),)
    return [
        *HEAD,
        *first,
        (_PATCHES, "encoder.patch_embed.proj"),
        (f"{LAYER}.attention.q_proj.bias", f"{block}.attn.q_bias"),
        (f"{LAYER}.attention.v_proj.bias", f"{block}.attn.v_bias"),
        (f"{LAYER}.attention.o_proj", f"{block}.attn.proj"),
        (f"{LAYER}.mlp.down_proj", f"{block}.mlp.fc2"),
    ]


def stacks(config: EoMTConfig) -> Sequence[Stack]:
    """See `Importer`: queries, keys and values are three matrices."""
    theirs = {f"{LAYER}.attention.{part}_proj.weight": 1 for part in "qkv"}
    found = [Stack(theirs=theirs, ours={"encoder.blocks.{i}.attn.qkv.weight": 1})]
    return [*found, GATE] if FORMS[config.encoder.name].gated else found


IMPORTER = Importer(
    source="hf",
    architecture="eomt",
    recognise=recognise,
    renames=renames,
    stacks=stacks,
    card_fields=card_fields,
    dropped=("criterion", "embeddings.mask_token"),
    constants=constants,
)
