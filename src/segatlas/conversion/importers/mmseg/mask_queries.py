"""Heads of queries in checkpoints of MMSegmentation ("decode_head") and MMDetection ("panoptic_head")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.backbones import (
    encoder_changes,
    encoder_constants,
    encoder_fields,
    encoder_renames,
    encoder_stacks,
)
from segatlas.conversion.importers.mmseg.heads import image_channels
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.stacks import Stack, attention_stacks
from segatlas.errors import WeightsError
from segatlas.models.mask2former import Mask2FormerConfig
from segatlas.models.maskformer import MaskFormerConfig

_NORMS: Renames = (("norms.0", "norm1"), ("norms.1", "norm2"), ("norms.2", "norm3"))
_FEED_FORWARD: Renames = (("ffn.layers.0.0", "feed_forward.fc1"), ("ffn.layers.1", "feed_forward.fc2"))
_CONV: Renames = (("conv", "conv"), ("gn", "norm"))


def mask2former_fields(file: ForeignWeights, head: str, bgr: bool = False) -> Mapping[str, Any] | None:
    """Return the config fields of a Mask2Former whose head is called so, None where the file has none.

    Raises:
        WeightsError: a form that ours does not have.
    """
    pixel = f"{head}.pixel_decoder"
    layer = f"{pixel}.encoder.layers.0"
    if not file.has(f"{head}.query_feat", f"{layer}.self_attn.sampling_offsets", f"{head}.mask_embed"):
        return None
    fields = _shared_fields(file, head, padding=32)
    if fields is None:
        return None
    if file.has(f"{head}.decoder_input_projs"):
        raise WeightsError("a Mask2Former with convolutions before its decoder (enforce_decoder_input_project)")
    levels = file.shape(f"{head}.level_embed.weight")[0]
    if levels != 3 or file.count(f"{pixel}.lateral_convs.{{i}}") != 1:
        raise WeightsError(
            f"a Mask2Former whose queries look at {levels} maps: only 3, with a finer one, are supported"
        )
    rows = file.shape(f"{layer}.self_attn.attention_weights.weight")[0]
    return {
        **fields,
        "queries": file.shape(f"{head}.query_feat.weight")[0],
        "mask_channels": file.shape(f"{pixel}.mask_feature.weight")[0],
        "points": rows // (levels * fields["heads"]),
        "pixel_layers": file.count(f"{pixel}.encoder.layers.{{i}}"),
        "pixel_hidden": file.shape(f"{layer}.ffn.layers.0.0.weight")[0],
        "bgr": bgr,
    }


def maskformer_fields(file: ForeignWeights, head: str, bgr: bool = False) -> Mapping[str, Any] | None:
    """Return the config fields of a MaskFormer whose head is called so, None where the file has none.

    Raises:
        WeightsError: a form that ours does not have.
    """
    pixel = f"{head}.pixel_decoder"
    if not file.has(f"{head}.query_embed", f"{pixel}.mask_feature", f"{head}.mask_embed"):
        return None
    if file.has(f"{head}.query_feat") or not (
        file.has(f"{pixel}.last_feat_conv") or file.has(f"{pixel}.encoder_out_proj")
    ):
        return None
    fields = _shared_fields(file, head, padding=1)
    if fields is None:
        return None
    dropped = file.stated(f"model.{head}.transformer_decoder.layer_cfg.ffn_cfg.ffn_drop")
    return {
        **fields,
        **({} if dropped is None else {"dropout": dropped}),
        "queries": file.shape(f"{head}.query_embed.weight")[0],
        "mask_channels": file.shape(f"{pixel}.mask_feature.weight")[0],
        "pixel_layers": file.count(f"{pixel}.encoder.layers.{{i}}"),
        "bgr": bgr,
    }


def _shared_fields(file: ForeignWeights, head: str, *, padding: int) -> dict[str, Any] | None:
    """Return what both have; `padding` where settings do not tell."""
    encoder = encoder_fields(file, output_stride=32)
    if encoder is None:
        return None
    decoder = f"model.{head}.transformer_decoder.layer_cfg"
    divisors = [
        file.stated(f"{place}.{key}")
        for place in ("model.data_preprocessor", "data_preprocessor")
        for key in ("pad_size_divisor", "test_cfg.size_divisor")
    ]
    stated = next((divisor for divisor in divisors if divisor), None)
    told = padding if file.stated("model.data_preprocessor") is None else 1
    layer = f"{head}.transformer_decoder.layers"
    return {
        **encoder,
        "num_classes": file.shape(f"{head}.cls_embed.weight")[0] - 1,
        "in_channels": image_channels(file),
        "channels": file.shape(f"{head}.cls_embed.weight")[1],
        "heads": file.setting(f"{decoder}.self_attn_cfg.num_heads", 8),
        "groups": file.setting(f"model.{head}.pixel_decoder.norm_cfg.num_groups", 32),
        "layers": file.count(f"{layer}.{{i}}"),
        "hidden": file.shape(f"{layer}.0.ffn.layers.0.0.weight")[0],
        "padding": stated or told,
    }


def mask2former_renames(head: str, config: Mask2FormerConfig) -> Renames:
    """Return the table of a Mask2Former."""
    pixel = f"{head}.pixel_decoder"
    theirs, ours = f"{pixel}.encoder.layers.{{i}}", "pixel_decoder.layers.{i}"
    return [
        *encoder_renames(config.encoder.name),
        *_below(f"{pixel}.input_convs.{{i}}", "pixel_decoder.project.{i}", _CONV),
        (f"{theirs}.self_attn", f"{ours}.attention"),
        *_below(theirs, ours, (*_FEED_FORWARD, *_NORMS[:2])),
        (f"{pixel}.level_encoding.weight", "pixel_decoder.level_embedding"),
        *_below(f"{pixel}.lateral_convs.{{i}}", "pixel_decoder.lateral.{i}", _CONV),
        *_below(f"{pixel}.output_convs.{{i}}", "pixel_decoder.output.{i}", _CONV),
        (f"{pixel}.mask_feature", "pixel_decoder.mask_features"),
        (f"{head}.query_feat.weight", "queries"),
        (f"{head}.level_embed.weight", "level_embedding"),
        *_decoder_renames(head),
    ]


def maskformer_renames(head: str, config: MaskFormerConfig) -> Renames:
    """Return the table of a MaskFormer."""
    pixel, pixel_layers = f"{head}.pixel_decoder", config.pixel_layers
    theirs, ours = f"{pixel}.encoder.layers.{{i}}", "pixel_layers.{i}"
    return [
        *encoder_renames(config.encoder.name),
        (f"{pixel}.encoder_in_proj" if pixel_layers else f"{head}.decoder_input_proj", "project"),
        (f"{theirs}.self_attn.attn.out_proj", f"{ours}.self_attention.proj"),
        *_below(theirs, ours, (*_FEED_FORWARD, *_NORMS[:2])),
        *_below(f"{pixel}.{'encoder_out_proj' if pixel_layers else 'last_feat_conv'}", "pyramid.coarsest", _CONV),
        *_below(f"{pixel}.lateral_convs.{{i}}", "pyramid.lateral.{i}", _CONV),
        *_below(f"{pixel}.output_convs.{{i}}", "pyramid.output.{i}", _CONV),
        (f"{pixel}.mask_feature", "pyramid.mask_features"),
        *_decoder_renames(head),
    ]


def _decoder_renames(head: str) -> Renames:
    theirs, ours = f"{head}.transformer_decoder.layers.{{i}}", "layers.{i}"
    return [
        (f"{head}.query_embed.weight", "query_positions"),
        (f"{theirs}.cross_attn.attn.out_proj", f"{ours}.cross_attention.proj"),
        (f"{theirs}.self_attn.attn.out_proj", f"{ours}.self_attention.proj"),
        *_below(theirs, ours, (*_FEED_FORWARD, *_NORMS)),
        (f"{head}.transformer_decoder.post_norm", "norm"),
        (f"{head}.cls_embed", "classifier"),
        (f"{head}.mask_embed", "mask_embedding"),
    ]


def _below(theirs: str, ours: str, parts: Renames) -> Renames:
    return [(f"{theirs}.{one}", f"{ours}.{other}") for one, other in parts]


def query_stacks(head: str, config: Any) -> list[Stack]:
    """Return how queries, keys and values lie in one matrix, in both decoders, and what the encoder's do."""
    layers = f"{head}.transformer_decoder.layers.{{i}}"
    places = {f"{layers}.{part}_attn.attn": f"layers.{{i}}.{part}_attention" for part in ("cross", "self")}
    places[f"{head}.pixel_decoder.encoder.layers.{{i}}.self_attn.attn"] = "pixel_layers.{i}.self_attention"
    return [*attention_stacks(places), *encoder_stacks(config)]


def query_importer(
    source: str,
    architecture: str,
    head: str,
    *,
    recognise: Callable[[ForeignWeights], Mapping[str, Any] | None],
    renames: Callable[[str, Any], Renames],
    card_fields: Callable[[ForeignWeights, Any], Mapping[str, Any]],
) -> Importer:
    """Return the importer of an architecture whose head is called `head`; for the rest see `Importer`."""
    return Importer(
        source=source,
        architecture=architecture,
        recognise=recognise,
        renames=lambda config: renames(head, config),
        changes=encoder_changes,
        stacks=lambda config: query_stacks(head, config),
        constants=encoder_constants,
        card_fields=card_fields,
    )
