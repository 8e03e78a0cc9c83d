"""MaskFormerForInstanceSegmentation on a ResNet or its own Swin Transformer, with the names of transformers 5 and 4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from segatlas.config.objects import TRANSFORMERS_MASKFORMER
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.hf import resnet, swin
from segatlas.conversion.importers.hf.mask_queries import (
    DECODER,
    ENCODER,
    TRANSFORMER,
    class_weights,
    encoder_fields,
    facts_of,
    padding,
    require_form,
)
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack
from segatlas.encoders.swin import SIZES
from segatlas.errors import WeightsError
from segatlas.models.maskformer import LEVELS, MaskFormerConfig

SWIN, LAYER, PYRAMID = f"{ENCODER}.model", f"{TRANSFORMER}.decoder.layers", f"{DECODER}.fpn"
NORMS = [f"{ENCODER}.hidden_states_norms.{stage}" for stage in range(4)]


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has(f"{PYRAMID}.stem.0", f"{TRANSFORMER}.queries_embedder", "mask_embedder", "class_predictor"):
        return None
    encoder = resnet.resnet_fields(file, ENCODER) or encoder_fields(file, SWIN)
    if encoder is None:
        return None
    require_form(file, {"decoder_config.activation_function": "relu", "decoder_config.model_type": "detr"})
    first = next((name for name in ("mlp.fc1", "fc1") if file.has(f"{LAYER}.0.{name}")), "fc1")
    queries, width = file.shape(f"{TRANSFORMER}.queries_embedder.weight")
    return {
        **encoder,
        "num_classes": file.shape("class_predictor.weight")[0] - 1,
        "queries": queries,
        "channels": width,
        "mask_channels": file.shape(f"{DECODER}.mask_projection.weight")[0],
        "heads": file.setting("decoder_config.decoder_attention_heads", 8),
        "layers": file.count(f"{LAYER}.{{i}}"),
        "hidden": file.shape(f"{LAYER}.0.{first}.weight")[0],
        "dropout": file.setting("decoder_config.dropout", 0.1),
        "padding": padding(file),
    }


def renames(config: MaskFormerConfig) -> Renames:
    """See `Importer`. The library's group norms have 32 groups always.

    Raises:
        WeightsError: the library has no such network.
    """
    if config.pixel_layers:
        raise WeightsError("Hugging Face's MaskFormer has no transformer on its coarsest map (pixel_layers)")
    if config.encoder.name not in (*SIZES, *resnet.NAMES):
        raise WeightsError(
            f"Hugging Face's MaskFormer is written on a ResNet or a Swin Transformer, not on '{config.encoder.name}'"
        )
    of_swin = [*swin.block_renames_before_5(SWIN), *swin.other_renames(SWIN, NORMS)]
    pyramid = []
    for index in range(LEVELS - 1):
        theirs, ours = f"{PYRAMID}.layers.{index}", LEVELS - 2 - index
        for part, name in (("proj", "lateral"), ("block", "output")):
            pyramid += [(f"{theirs}.{part}.0", f"pyramid.{name}.{ours}.conv")]
            pyramid += [(f"{theirs}.{part}.1", f"pyramid.{name}.{ours}.norm")]
    return [
        *(of_swin if config.encoder.name in SIZES else resnet.resnet_renames(ENCODER)),
        (f"{PYRAMID}.stem.0", "pyramid.coarsest.conv"),
        (f"{PYRAMID}.stem.1", "pyramid.coarsest.norm"),
        *pyramid,
        (f"{DECODER}.mask_projection", "pyramid.mask_features"),
        (f"{TRANSFORMER}.queries_embedder.weight", "query_positions"),
        (f"{TRANSFORMER}.input_projection", "project"),
        *_attention("self_attn", "self_attention"),
        *_attention("encoder_attn", "cross_attention"),
        (f"{LAYER}.{{i}}.self_attn_layer_norm", "layers.{i}.norm1"),
        (f"{LAYER}.{{i}}.encoder_attn_layer_norm", "layers.{i}.norm2"),
        (f"{LAYER}.{{i}}.final_layer_norm", "layers.{i}.norm3"),
        (f"{LAYER}.{{i}}.mlp", "layers.{i}.feed_forward"),
        *((f"{LAYER}.{{i}}.{name}", f"layers.{{i}}.feed_forward.{name}") for name in ("fc1", "fc2")),
        (f"{TRANSFORMER}.decoder.layernorm", "norm"),
        *((f"mask_embedder.{i}.0", f"mask_embedding.{2 * i}") for i in range(3)),
        ("class_predictor", "classifier"),
    ]


def _attention(theirs: str, ours: str) -> Renames:
    """Return the table of an attention; the last matrix had another name up to transformers 4."""
    there, here = f"{LAYER}.{{i}}.{theirs}", f"layers.{{i}}.{ours}"
    return [
        *((f"{there}.{part}_proj", f"{here}.{part}") for part in "qkv"),
        (f"{there}.o_proj", f"{here}.proj"),
        (f"{there}.out_proj", f"{here}.proj"),
    ]


def stacks(config: MaskFormerConfig) -> Sequence[Stack]:
    """See `Importer`."""
    return [swin.block_stack_before_5(SWIN)] if config.encoder.name in SIZES else []


def constants(config: MaskFormerConfig) -> Mapping[str, Tensor]:
    """See `Importer`."""
    if config.encoder.name not in SIZES:
        return class_weights(config.num_classes)
    return {
        **swin.unused_norm(f"{SWIN}.layernorm", config.encoder),
        **swin.indices_before_5(SWIN, config.encoder),
        **class_weights(config.num_classes),
    }


def card_fields(file: ForeignWeights, config: MaskFormerConfig) -> Mapping[str, Any]:
    """See `Importer`."""
    return facts_of(file, config.num_classes, TRANSFORMERS_MASKFORMER, "facebook/maskformer-*")


IMPORTER = Importer(
    source="hf",
    architecture="maskformer",
    recognise=recognise,
    renames=renames,
    stacks=stacks,
    dropped=("criterion", *swin.index_before_5(SWIN)),
    constants=constants,
    card_fields=card_fields,
)
