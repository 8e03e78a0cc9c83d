"""DDRNet of MMSegmentation: the two branches as backbone, `DDRHead` with its auxiliary head inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.dual_resolution import dappm_renames, stem_renames
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER
from segatlas.conversion.importers.renames import Renames
from segatlas.models.ddrnet import DDRNetConfig


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("backbone.context_branch_layers", "backbone.spp", "decode_head.head"):
        return None
    return {
        "num_classes": file.shape("decode_head.conv_seg.weight")[0],
        "in_channels": file.shape("backbone.stem.0.conv.weight")[1],
        "width": file.shape("backbone.stem.0.conv.weight")[0],
        "pool_channels": file.shape("backbone.spp.scales.0.conv.weight")[0],
        "channels": file.shape("decode_head.conv_seg.weight")[1],
        "align_corners": file.setting("model.decode_head.align_corners", False),
        "aux": file.has("decode_head.aux_cls_seg"),
    }


def backbone(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("backbone.stem.0.conv", "backbone.context_branch_layers"):
        return None
    return {"width": file.shape("backbone.stem.0.conv.weight")[0]}


def renames(config: DDRNetConfig) -> Renames:
    """See `Importer`."""
    return [
        *stem_renames("downsample.0", "downsample.1"),
        *(
            (f"backbone.{theirs}.{{i}}.{{j}}.downsample.{index}", f"encoder.{ours}.{{i}}.{{j}}.downsample.{part}")
            for theirs, ours in (("context_branch_layers", "context"), ("spatial_branch_layers", "detail"))
            for index, part in enumerate(("conv", "bn"))
        ),
        ("backbone.context_branch_layers", "encoder.context"),
        ("backbone.spatial_branch_layers", "encoder.detail"),
        *((f"backbone.compression_{index + 1}", f"encoder.to_detail.{index}") for index in range(2)),
        *((f"backbone.down_{index + 1}", f"encoder.to_context.{index}") for index in range(2)),
        *dappm_renames("backbone.spp", "encoder.pool"),
        ("decode_head.head.0", "head.conv"),
        ("decode_head.head.1", "head.bn"),
        *CLASSIFIER,
        ("decode_head.aux_head.0", "aux_heads.detail.0.conv"),
        ("decode_head.aux_head.1", "aux_heads.detail.0.bn"),
        ("decode_head.aux_cls_seg", "aux_heads.detail.1"),
    ]


IMPORTER = Importer(source="mmseg", architecture="ddrnet", recognise=recognise, renames=renames, backbone=backbone)
