"""What the importers of networks of queries share: Swin Transformers below them, and what settings have to say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from segatlas.config.objects import ObjectRule
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.hf import swin
from segatlas.conversion.importers.query_facts import ZOO_LICENCE, query_facts
from segatlas.conversion.importers.renames import Renames
from segatlas.errors import WeightsError
from segatlas.models.query_network import LEVELS

ENCODER, DECODER = "model.pixel_level_module.encoder", "model.pixel_level_module.decoder"
TRANSFORMER = "model.transformer_module"
SWIN = f"{ENCODER}.swin"
NORMS = [f"{ENCODER}.hidden_states_norms.stage{stage + 1}" for stage in range(4)]
"""Below Mask2Former and OneFormer, as of transformers 5; before, the encoder's names began without "swin"."""
_WEIGHT_OF_NONE = 0.1
_PIXEL_LAYER = f"{DECODER}.encoder.layers"


def encoder_fields(file: ForeignWeights, *roots: str) -> Mapping[str, Any] | None:
    """Return the config fields of the encoder, whose names begin with one of `roots`; None where it is no Swin."""
    tables = (swin.TABLE, swin.TABLE_BEFORE_5)
    found = (swin.swin_fields(file, root, table) for root in roots for table in tables)
    return next((fields for fields in found if fields is not None), None)


def require_form(file: ForeignWeights, fixed: Mapping[str, Any]) -> None:
    """Raise WeightsError where settings state another value than the only one that ours has."""
    for key, ours in fixed.items():
        stated = file.stated(key)
        if stated not in (None, ours):
            raise WeightsError(f"{key} = {stated}: only {ours} is supported")


def padding(file: ForeignWeights) -> int:
    """Return to which multiple of pixels images grow, as the image processor says, 32 if it does not."""
    processor = "preprocessor_config"
    found = file.stated(f"{processor}.size_divisor") or file.stated(f"{processor}.size_divisibility")
    return found if isinstance(found, int) and found > 0 else 32


def pixel_fields(file: ForeignWeights, heads: int) -> dict[str, Any]:
    """Return the config fields of a pixel decoder of deformable attention with so many heads."""
    return {
        "mask_channels": file.shape(f"{DECODER}.mask_projection.weight")[0],
        "heads": heads,
        "pixel_layers": file.count(f"{_PIXEL_LAYER}.{{i}}"),
        "pixel_hidden": file.shape(f"{_PIXEL_LAYER}.0.fc1.weight")[0],
        "points": file.shape(f"{_PIXEL_LAYER}.0.self_attn.attention_weights.weight")[0] // (LEVELS * heads),
        "padding": padding(file),
    }


def masked_renames() -> Renames:
    """Return what Mask2Former and OneFormer have in common: encoder, pixel decoder, what is learned of queries."""
    pixel, ours = f"{_PIXEL_LAYER}.{{i}}", "pixel_decoder.layers.{i}"
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
        (f"{TRANSFORMER}.queries_embedder.weight", "query_positions"),
        (f"{TRANSFORMER}.level_embed.weight", "level_embedding"),
    ]


def facts_of(file: ForeignWeights, classes: int, rule: ObjectRule, names: str) -> dict[str, Any]:
    """Return the further fields of a card. Nothing in the file tells the task, nor whose the weights are.

    names: how those that the authors published are called.
    """
    file.note(f"licence: what {names} publish is {ZOO_LICENCE}; the file does not tell whose it is")
    return query_facts(file, classes, rule, class_maps=rule)


def class_weights(classes: int) -> dict[str, Tensor]:
    """Return the weights of classes in the library's loss, which stand in all its files."""
    weights = torch.ones(classes + 1)
    weights[-1] = _WEIGHT_OF_NONE
    return {"criterion.empty_weight": weights}
