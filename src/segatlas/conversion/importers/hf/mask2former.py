"""Mask2FormerForUniversalSegmentation on a Swin Transformer, as transformers 5 and 4 name its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from segatlas.config.objects import TRANSFORMERS_MASK2FORMER
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.hf import swin
from segatlas.conversion.importers.hf.mask_queries import (
    DECODER,
    ENCODER,
    SWIN,
    TRANSFORMER,
    class_weights,
    encoder_fields,
    facts_of,
    masked_renames,
    pixel_fields,
    require_form,
)
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack, attention_stacks
from segatlas.models.mask2former import Mask2FormerConfig

LAYER = f"{TRANSFORMER}.decoder.layers"


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    offsets = f"{DECODER}.encoder.layers.0.self_attn.sampling_offsets"
    if not file.has(offsets, f"{TRANSFORMER}.queries_features", "class_predictor"):
        return None
    encoder = encoder_fields(file, SWIN, ENCODER)
    if encoder is None:
        return None
    fixed = {"activation_function": "relu", "pre_norm": False, "enforce_input_projection": False, "common_stride": 4}
    require_form(file, fixed)
    queries, width = file.shape(f"{TRANSFORMER}.queries_features.weight")
    return {
        **encoder,
        **pixel_fields(file, file.setting("num_attention_heads", 8)),
        "num_classes": file.shape("class_predictor.weight")[0] - 1,
        "queries": queries,
        "channels": width,
        "layers": file.count(f"{LAYER}.{{i}}"),
        "hidden": file.shape(f"{LAYER}.0.fc1.weight")[0],
        "dropout": file.stated("dropout") or 0.0,
    }


def renames(config: Mask2FormerConfig) -> Renames:
    """See `Importer`. The library's group norms have 32 groups always."""
    layer = f"{LAYER}.{{i}}"
    return [
        *masked_renames(),
        (f"{TRANSFORMER}.queries_features.weight", "queries"),
        *((f"{layer}.self_attn.{part}_proj", f"layers.{{i}}.self_attention.{part}") for part in "qkv"),
        (f"{layer}.self_attn.out_proj", "layers.{i}.self_attention.proj"),
        (f"{layer}.cross_attn.out_proj", "layers.{i}.cross_attention.proj"),
        (f"{layer}.cross_attn_layer_norm", "layers.{i}.norm1"),
        (f"{layer}.self_attn_layer_norm", "layers.{i}.norm2"),
        (f"{layer}.fc1", "layers.{i}.feed_forward.fc1"),
        (f"{layer}.fc2", "layers.{i}.feed_forward.fc2"),
        (f"{layer}.final_layer_norm", "layers.{i}.norm3"),
        (f"{TRANSFORMER}.decoder.layernorm", "norm"),
        *((f"{TRANSFORMER}.decoder.mask_predictor.mask_embedder.{i}.0", f"mask_embedding.{2 * i}") for i in range(3)),
        ("class_predictor", "classifier"),
    ]


def stacks(config: Mask2FormerConfig) -> Sequence[Stack]:
    """See `Importer`."""
    cross = attention_stacks({f"{LAYER}.{{i}}.cross_attn": "layers.{i}.cross_attention"})
    return [*cross, swin.block_stack(SWIN), swin.block_stack_before_5(ENCODER)]


def constants(config: Mask2FormerConfig) -> Mapping[str, Tensor]:
    """See `Importer`."""
    return {**swin.unused_norm(f"{SWIN}.layernorm", config.encoder), **class_weights(config.num_classes)}


def card_fields(file: ForeignWeights, config: Mask2FormerConfig) -> Mapping[str, Any]:
    """See `Importer`."""
    return facts_of(file, config.num_classes, TRANSFORMERS_MASK2FORMER, "facebook/mask2former-*")


IMPORTER = Importer(
    source="hf",
    architecture="mask2former",
    recognise=recognise,
    renames=renames,
    stacks=stacks,
    dropped=("criterion", *swin.index_before_5(ENCODER)),
    constants=constants,
    card_fields=card_fields,
)
