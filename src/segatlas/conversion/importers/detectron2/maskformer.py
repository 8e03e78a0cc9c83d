"""The authors' MaskFormer, semantic and panoptic, on ResNet and Swin Transformer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.config.objects import MMDET_MASKFORMER
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
from segatlas.models.maskformer import LEVELS, MaskFormerConfig

PIXEL_LAYER, LAYER = f"{PIXEL}.transformer.encoder.layers", f"{PREDICTOR}.transformer.decoder.layers"


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has(f"{LAYER}.0.multihead_attn", f"{PIXEL}.layer_{LEVELS}", f"{PREDICTOR}.class_embed"):
        return None
    encoder = encoder_fields(file)
    if encoder is None:
        return None
    if file.has(f"{PREDICTOR}.transformer.encoder.layers"):
        raise WeightsError("a MaskFormer with an encoder's layers in its predictor (ENC_LAYERS)")
    return {
        **encoder,
        **head_fields(file),
        "pixel_layers": file.count(f"{PIXEL_LAYER}.{{i}}"),
        "layers": file.count(f"{LAYER}.{{i}}"),
        "hidden": file.shape(f"{LAYER}.0.linear1.weight")[0],
    }


def renames(config: MaskFormerConfig) -> Renames:
    """See `Importer`. Their levels are numbered from the finest."""
    convs = [
        pair for i in range(1, LEVELS) for pair in conv_renames(f"{PIXEL}.adapter_{i}", f"pyramid.lateral.{i - 1}")
    ]
    convs += [pair for i in range(1, LEVELS) for pair in conv_renames(f"{PIXEL}.layer_{i}", f"pyramid.output.{i - 1}")]
    theirs, ours = f"{PIXEL_LAYER}.{{i}}", "pixel_layers.{i}"
    return [
        *encoder_renames(config.encoder.name),
        *convs,
        *conv_renames(f"{PIXEL}.layer_{LEVELS}", "pyramid.coarsest"),
        (f"{PIXEL}.mask_features", "pyramid.mask_features"),
        (f"{PIXEL}.input_proj" if config.pixel_layers else f"{PREDICTOR}.input_proj", "project"),
        (f"{theirs}.self_attn.out_proj", f"{ours}.self_attention.proj"),
        *((f"{theirs}.linear{index}", f"{ours}.feed_forward.fc{index}") for index in (1, 2)),
        *((f"{theirs}.norm{index}", f"{ours}.norm{index}") for index in (1, 2)),
        (f"{LAYER}.{{i}}.self_attn.out_proj", "layers.{i}.self_attention.proj"),
        (f"{LAYER}.{{i}}.multihead_attn.out_proj", "layers.{i}.cross_attention.proj"),
        *((f"{LAYER}.{{i}}.linear{index}", f"layers.{{i}}.feed_forward.fc{index}") for index in (1, 2)),
        *((f"{LAYER}.{{i}}.norm{index}", f"layers.{{i}}.norm{index}") for index in (1, 2, 3)),
        (f"{PREDICTOR}.transformer.decoder.norm", "norm"),
        *EMBEDDINGS,
    ]


IMPORTER = query_importer(
    "maskformer",
    MMDET_MASKFORMER,
    recognise=recognise,
    renames=renames,
    attention={
        f"{LAYER}.{{i}}.multihead_attn": "layers.{i}.cross_attention",
        f"{LAYER}.{{i}}.self_attn": "layers.{i}.self_attention",
        f"{PIXEL_LAYER}.{{i}}.self_attn": "pixel_layers.{i}.self_attention",
    },
)
