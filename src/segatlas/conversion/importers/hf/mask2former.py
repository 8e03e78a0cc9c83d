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
    TRANSFORMER,
    encoder_fields,
    padding,
    require_form,
)
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.mask_queries import attention_stack
from segatlas.conversion.importers.query_facts import ZOO_LICENCE, query_facts
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.models.mask2former import LEVELS, Mask2FormerConfig

SWIN, LAYER, PIXEL_LAYER = f"{ENCODER}.swin", f"{TRANSFORMER}.decoder.layers", f"{DECODER}.encoder.layers"
RULE = TRANSFORMERS_MASK2FORMER
NORMS = [f"{ENCODER}.hidden_states_norms.stage{stage + 1}" for stage in range(4)]


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has(
        f"{PIXEL_LAYER}.0.self_attn.sampling_offsets", f"{TRANSFORMER}.queries_features", "class_predictor"
    ):
        return None
    encoder = encoder_fields(file, SWIN, ENCODER)
    if encoder is None:
        return None
    fixed = {"activation_function": "relu", "pre_norm": False, "enforce_input_projection": False, "common_stride": 4}
    require_form(file, fixed)
    heads = file.setting("num_attention_heads", 8)
    rows = file.shape(f"{PIXEL_LAYER}.0.self_attn.attention_weights.weight")[0]
    queries, width = file.shape(f"{TRANSFORMER}.queries_features.weight")
    return {
        **encoder,
        "num_classes": file.shape("class_predictor.weight")[0] - 1,
        "queries": queries,
        "channels": width,
        "mask_channels": file.shape(f"{DECODER}.mask_projection.weight")[0],
        "heads": heads,
        "points": rows // (LEVELS * heads),
        "pixel_layers": file.count(f"{PIXEL_LAYER}.{{i}}"),
        "pixel_hidden": file.shape(f"{PIXEL_LAYER}.0.fc1.weight")[0],
        "layers": file.count(f"{LAYER}.{{i}}"),
        "hidden": file.shape(f"{LAYER}.0.fc1.weight")[0],
        "dropout": file.stated("dropout") or 0.0,
        "padding": padding(file),
    }


def renames(config: Mask2FormerConfig) -> Renames:
    """See `Importer`. The library's group norms have 32 groups always."""
    pixel, ours = f"{PIXEL_LAYER}.{{i}}", "pixel_decoder.layers.{i}"
    layer = f"{LAYER}.{{i}}"
    return [
        *swin.block_renames(SWIN),
        *swin.other_renames(SWIN, NORMS),
        *swin.block_renames_before_5(ENCODER),
        *swin.other_renames(ENCODER, NORMS),
        (f"{DECODER}.input_projections.{{i}}.0", "pixel_decoder.project.{i}.conv"),
        (f"{DECODER}.input_projections.{{i}}.1", "pixel_decoder.project.{i}.norm"),
        (f"{pixel}.self_attn_layer_norm", f"{ours}.norm1"),
        (f"{pixel}.self_attn", f"{ours}.attention"),
        (f"{pixel}.fc1", f"{ours}.feed_forward.fc1"),
        (f"{pixel}.fc2", f"{ours}.feed_forward.fc2"),
        (f"{pixel}.final_layer_norm", f"{ours}.norm2"),
        (f"{DECODER}.level_embed", "pixel_decoder.level_embedding"),
        (f"{DECODER}.adapter_1.0", "pixel_decoder.lateral.0.conv"),
        (f"{DECODER}.adapter_1.1", "pixel_decoder.lateral.0.norm"),
        (f"{DECODER}.layer_1.0", "pixel_decoder.output.0.conv"),
        (f"{DECODER}.layer_1.1", "pixel_decoder.output.0.norm"),
        (f"{DECODER}.mask_projection", "pixel_decoder.mask_features"),
        (f"{TRANSFORMER}.queries_features.weight", "queries"),
        (f"{TRANSFORMER}.queries_embedder.weight", "query_positions"),
        (f"{TRANSFORMER}.level_embed.weight", "level_embedding"),
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
    cross = [attention_stack(f"{LAYER}.{{i}}.cross_attn", "layers.{i}.cross_attention", k) for k in ("weight", "bias")]
    return [*cross, swin.block_stack(SWIN), swin.block_stack_before_5(ENCODER)]


def constants(config: Mask2FormerConfig) -> Mapping[str, Tensor]:
    """See `Importer`."""
    return swin.unused_norm(f"{SWIN}.layernorm", config.encoder)


def card_fields(file: ForeignWeights, config: Mask2FormerConfig) -> Mapping[str, Any]:
    """See `Importer`. Nothing there tells the task, nor whose the weights are."""
    file.note(f"licence: what facebook/mask2former-* publish is {ZOO_LICENCE}; the file does not tell whose it is")
    return query_facts(file, config.num_classes, RULE, class_maps=RULE)


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
