"""ConvNeXt below heads of Hugging Face; its names are the same in all versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.convnext import STAGES, convnext_fields, convnext_names, norm_renames
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.hf.backbones import BackboneNames
from segatlas.conversion.importers.renames import Renames
from segatlas.encoders.spec import EncoderSpec
from segatlas.errors import WeightsError

_STAGE = "backbone.encoder.stages.{s}"
_FIXED = {"hidden_act": "gelu", "patch_size": 4, "out_features": ["stage1", "stage2", "stage3", "stage4"]}
"""Key of `backbone_config` -> the one value that ours has."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `BackboneNames`."""
    fields = convnext_fields(
        file, "backbone.embeddings.patch_embeddings.weight", f"{_STAGE}.layers.{{i}}.layer_scale_parameter"
    )
    if fields is None:
        return None
    for key, ours in _FIXED.items():
        stated = file.stated(f"backbone_config.{key}")
        if stated not in (None, ours):
            raise WeightsError(f"backbone_config.{key} = {stated}: only {ours} is supported")
    drop_path = file.stated("backbone_config.drop_path_rate")
    return {**fields, "encoder_options": {} if not drop_path else {"drop_path": drop_path}}


def renames(encoder: EncoderSpec) -> Renames:
    """See `BackboneNames`."""
    layers, ours = f"{_STAGE}.layers.{{i}}", "encoder.model.stages_{s}.blocks.{i}"
    return [
        ("backbone.embeddings.patch_embeddings", "encoder.model.stem_0"),
        ("backbone.embeddings.layernorm", "encoder.model.stem_1"),
        (f"{layers}.layer_scale_parameter", f"{ours}.gamma"),
        (f"{layers}.dwconv", f"{ours}.conv_dw"),
        (f"{layers}.layernorm", f"{ours}.norm"),
        (f"{layers}.pwconv1", f"{ours}.mlp.fc1"),
        (f"{layers}.pwconv2", f"{ours}.mlp.fc2"),
        (f"{_STAGE}.downsampling_layer", "encoder.model.stages_{s}.downsample"),
        *norm_renames([f"backbone.hidden_states_norms.stage{stage + 1}" for stage in range(STAGES)]),
    ]


BACKBONE = BackboneNames(encoders=convnext_names(), recognise=recognise, renames=renames)
