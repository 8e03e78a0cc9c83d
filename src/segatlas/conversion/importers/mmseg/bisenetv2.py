"""BiSeNet V2 of MMSegmentation: both branches as backbone, an FCN head, four auxiliary heads of two convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER
from segatlas.conversion.importers.renames import Renames
from segatlas.models.bisenetv2 import BiSeNetV2Config


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("backbone.detail.detail_branch", "backbone.semantic", "backbone.bga", "decode_head.convs.0"):
        return None
    detail = [file.shape(f"backbone.detail.detail_branch.{stage}.0.conv.weight") for stage in range(3)]
    stages = [file.shape(f"backbone.semantic.stage{stage}.0.conv2.0.conv.weight") for stage in (2, 3, 4)]
    stem = file.shape("backbone.semantic.stage1.conv_first.conv.weight")[0]
    aux = file.has("auxiliary_head.3.conv_seg")
    widths = [file.shape(f"auxiliary_head.{index}.convs.0.conv.weight")[0] for index in range(4 if aux else 0)]
    return {
        "num_classes": file.shape("decode_head.conv_seg.weight")[0],
        "in_channels": detail[0][1],
        "detail_channels": tuple(shape[0] for shape in detail),
        "semantic_channels": (stem, *(shape[0] for shape in stages)),
        "expansion": stages[0][1] // stem,
        "channels": file.shape("decode_head.convs.0.conv.weight")[0],
        "align_corners": file.setting("model.decode_head.align_corners", False),
        "aux": aux,
        **({"aux_channels": tuple(widths)} if aux else {}),
    }


def renames(config: BiSeNetV2Config) -> Renames:
    """See `Importer`."""
    return [
        ("backbone.detail.detail_branch", "encoder.detail"),
        ("backbone.semantic.stage1.conv_first", "encoder.semantic.0.first"),
        ("backbone.semantic.stage1.convs", "encoder.semantic.0.left"),
        ("backbone.semantic.stage1.fuse_last", "encoder.semantic.0.fuse"),
        ("backbone.semantic.stage4_CEBlock.gap.1", "encoder.embedding.bn"),
        ("backbone.semantic.stage4_CEBlock.conv_gap", "encoder.embedding.pooled"),
        ("backbone.semantic.stage4_CEBlock.conv_last", "encoder.embedding.conv"),
        *(
            (f"backbone.semantic.stage{stage + 1}.{{i}}.{theirs}", f"encoder.semantic.{stage}.{{i}}.{ours}")
            for stage in (1, 2, 3)
            for theirs, ours in (
                ("conv1", "gather"),
                ("dwconv", "expand"),
                ("conv2.0", "project"),
                ("shortcut.0.depthwise_conv", "shortcut.0"),
                ("shortcut.0.pointwise_conv", "shortcut.1"),
            )
        ),
        *(
            pair
            for theirs, ours in (("detail_dwconv", "detail_fine"), ("semantic_dwconv", "semantic_coarse"))
            for pair in (
                (f"backbone.bga.{theirs}.0.depthwise_conv", f"encoder.aggregation.{ours}.0"),
                (f"backbone.bga.{theirs}.0.pointwise_conv.conv", f"encoder.aggregation.{ours}.1"),
            )
        ),
        ("backbone.bga.detail_down.0", "encoder.aggregation.detail_coarse.0"),
        ("backbone.bga.semantic_conv.0", "encoder.aggregation.semantic_fine"),
        ("backbone.bga.conv", "encoder.aggregation.fuse"),
        ("decode_head.convs.0", "conv"),
        *CLASSIFIER,
        *(
            pair
            for index, stride in enumerate((4, 8, 16, 32))
            for pair in (
                (f"auxiliary_head.{index}.conv_seg", f"aux_heads.stride{stride}.3"),
                (f"auxiliary_head.{index}.convs.{{i}}", f"aux_heads.stride{stride}.{{i}}"),
            )
        ),
    ]


IMPORTER = Importer(source="mmseg", architecture="bisenetv2", recognise=recognise, renames=renames)
