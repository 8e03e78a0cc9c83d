"""The authors' Mask2Former, of all tasks, on ResNet and Swin Transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.config.objects import MASK2FORMER
from segatlas.conversion.importers.detectron2.mask_queries import (
    EMBEDDINGS,
    PIXEL,
    PREDICTOR,
    conv_renames,
    encoder_fields,
    encoder_renames,
    head_fields,
    query_importer,
)
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.renames import Renames
from segatlas.errors import WeightsError
from segatlas.models.mask2former import Mask2FormerConfig
from segatlas.models.query_network import LEVELS

PIXEL_LAYER = f"{PIXEL}.transformer.encoder.layers"
SELF, CROSS, HIDDEN = (
    f"{PREDICTOR}.transformer_{part}_layers" for part in ("self_attention", "cross_attention", "ffn")
)


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has(
        f"{PIXEL_LAYER}.0.self_attn.sampling_offsets", f"{CROSS}.0.multihead_attn", f"{PREDICTOR}.class_embed"
    ):
        return None
    encoder = encoder_fields(file)
    if encoder is None:
        return None
    if file.has(f"{PREDICTOR}.input_proj"):
        raise WeightsError("a Mask2Former with convolutions before its decoder (ENFORCE_INPUT_PROJ)")
    fields = {**encoder, **head_fields(file)}
    rows = file.shape(f"{PIXEL_LAYER}.0.self_attn.attention_weights.weight")[0]
    return {
        **fields,
        "points": rows // (LEVELS * fields["heads"]),
        "pixel_layers": file.count(f"{PIXEL_LAYER}.{{i}}"),
        "pixel_hidden": file.shape(f"{PIXEL_LAYER}.0.linear1.weight")[0],
        "layers": file.count(f"{CROSS}.{{i}}"),
        "hidden": file.shape(f"{HIDDEN}.0.linear1.weight")[0],
    }


def renames(config: Mask2FormerConfig) -> Renames:
    """See `Importer`. What queries are at first had another name in early files."""
    pixel, ours = f"{PIXEL_LAYER}.{{i}}", "pixel_decoder.layers.{i}"
    return [
        *encoder_renames(config.encoder.name),
        (f"{PIXEL}.input_proj.{{i}}.0", "pixel_decoder.project.{i}.conv"),
        (f"{PIXEL}.input_proj.{{i}}.1", "pixel_decoder.project.{i}.norm"),
        (f"{pixel}.self_attn", f"{ours}.attention"),
        (f"{pixel}.linear1", f"{ours}.feed_forward.fc1"),
        (f"{pixel}.linear2", f"{ours}.feed_forward.fc2"),
        *((f"{pixel}.norm{index}", f"{ours}.norm{index}") for index in (1, 2)),
        (f"{PIXEL}.transformer.level_embed", "pixel_decoder.level_embedding"),
        *conv_renames(f"{PIXEL}.adapter_1", "pixel_decoder.lateral.0"),
        *conv_renames(f"{PIXEL}.layer_1", "pixel_decoder.output.0"),
        (f"{PIXEL}.mask_features", "pixel_decoder.mask_features"),
        (f"{PREDICTOR}.query_feat.weight", "queries"),
        (f"{PREDICTOR}.static_query.weight", "queries"),
        (f"{PREDICTOR}.level_embed.weight", "level_embedding"),
        (f"{CROSS}.{{i}}.multihead_attn.out_proj", "layers.{i}.cross_attention.proj"),
        (f"{CROSS}.{{i}}.norm", "layers.{i}.norm1"),
        (f"{SELF}.{{i}}.self_attn.out_proj", "layers.{i}.self_attention.proj"),
        (f"{SELF}.{{i}}.norm", "layers.{i}.norm2"),
        (f"{HIDDEN}.{{i}}.linear1", "layers.{i}.feed_forward.fc1"),
        (f"{HIDDEN}.{{i}}.linear2", "layers.{i}.feed_forward.fc2"),
        (f"{HIDDEN}.{{i}}.norm", "layers.{i}.norm3"),
        (f"{PREDICTOR}.decoder_norm", "norm"),
        *EMBEDDINGS,
    ]


IMPORTER = query_importer(
    "mask2former",
    MASK2FORMER,
    recognise=recognise,
    renames=renames,
    attention={
        f"{CROSS}.{{i}}.multihead_attn": "layers.{i}.cross_attention",
        f"{SELF}.{{i}}.self_attn": "layers.{i}.self_attention",
    },
)
