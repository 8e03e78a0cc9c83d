"""MMPretrain's `ConvNeXt`, which MMSegmentation's configs take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.convnext import STAGES, convnext_fields, convnext_names, norm_renames
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.mmseg.backbones import Backbone
from segatlas.conversion.importers.renames import Renames
from segatlas.errors import WeightsError


def recognise(file: ForeignWeights, output_stride: int) -> Mapping[str, Any] | None:
    """See `Backbone`. The strides are its own."""
    fields = convnext_fields(file, "backbone.downsample_layers.0.0.weight", "backbone.stages.{s}.{i}.gamma")
    if fields is None:
        return None
    for path, ours in (("use_grn", False), ("stem_patch_size", 4), ("out_indices", [0, 1, 2, 3])):
        stated = file.stated(f"model.backbone.{path}")
        if stated not in (None, ours, tuple(ours) if isinstance(ours, list) else ours):
            raise WeightsError(f"model.backbone.{path} = {stated}: only {ours} is supported")
    drop_path = file.stated("model.backbone.drop_path_rate")
    options = {"drop_path": drop_path} if drop_path else {}
    return {**fields, "output_stride": None, "encoder_options": options}


def renames(encoder: str) -> Renames:
    """See `Backbone`."""
    if encoder not in convnext_names():
        raise WeightsError(f"MMSegmentation has no backbone '{encoder}'")
    block, ours = "backbone.stages.{s}.{i}", "encoder.model.stages_{s}.blocks.{i}"
    return [
        ("backbone.downsample_layers.0.0", "encoder.model.stem_0"),
        ("backbone.downsample_layers.0.1", "encoder.model.stem_1"),
        *(
            (f"backbone.downsample_layers.{stage}", f"encoder.model.stages_{stage}.downsample")
            for stage in range(1, STAGES)
        ),
        (f"{block}.depthwise_conv", f"{ours}.conv_dw"),
        (f"{block}.pointwise_conv1", f"{ours}.mlp.fc1"),
        (f"{block}.pointwise_conv2", f"{ours}.mlp.fc2"),
        (block, ours),
        *norm_renames([f"backbone.norm{stage}" for stage in range(STAGES)]),
    ]


BACKBONE = Backbone(module="segatlas.encoders.timm_adapter", recognise=recognise, renames=renames)
