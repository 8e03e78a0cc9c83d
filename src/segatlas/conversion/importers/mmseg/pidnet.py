"""PIDNet of MMSegmentation: three branches as backbone, `PIDHead` with the heads of detail and boundaries inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.dual_resolution import dappm_renames, stem_renames
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER
from segatlas.conversion.importers.renames import Renames
from segatlas.models.pidnet import PIDNetConfig


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("backbone.i_branch_layers", "backbone.d_branch_layers", "decode_head.i_head"):
        return None
    return {
        "num_classes": file.shape("decode_head.conv_seg.weight")[0],
        "in_channels": file.shape("backbone.stem.0.conv.weight")[1],
        "width": file.shape("backbone.stem.0.conv.weight")[0],
        "detail_blocks": file.count("backbone.stem.2.{i}"),
        "context_blocks": file.count("backbone.i_branch_layers.0.{i}"),
        "light": file.has("backbone.dfm.f_p"),
        "pool_channels": file.shape("backbone.spp.scales.0.conv.weight")[0],
        "channels": file.shape("decode_head.conv_seg.weight")[1],
        "align_corners": file.setting("model.decode_head.align_corners", True),
        "aux": file.has("decode_head.d_cls_seg"),
    }


def backbone(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("backbone.stem.0.conv", "backbone.i_branch_layers"):
        return None
    return {
        "width": file.shape("backbone.stem.0.conv.weight")[0],
        "detail_blocks": file.count("backbone.stem.2.{i}"),
        "context_blocks": file.count("backbone.i_branch_layers.0.{i}"),
    }


def renames(config: PIDNetConfig) -> Renames:
    """See `Importer`."""
    branches = {"i": "context", "p": "detail", "d": "boundary"}
    fusion = (("f_p", "detail"), ("f_i", "context")) if config.light else (("conv", "conv"),)
    return [
        *stem_renames(),
        *((f"backbone.{letter}_branch_layers", f"encoder.{ours}") for letter, ours in branches.items()),
        *(
            pair
            for index in range(2)
            for pair in (
                (f"backbone.compression_{index + 1}", f"encoder.to_detail.{index}"),
                (f"backbone.diff_{index + 1}", f"encoder.to_boundary.{index}"),
                (f"backbone.pag_{index + 1}.f_i", f"encoder.attention.{index}.of_context"),
                (f"backbone.pag_{index + 1}.f_p", f"encoder.attention.{index}.of_detail"),
            )
        ),
        *dappm_renames("backbone.spp", "encoder.pool"),
        *((f"backbone.dfm.{theirs}", f"encoder.fusion.{ours}") for theirs, ours in fusion),
        ("decode_head.i_head.conv", "head.conv"),
        ("decode_head.i_head.norm", "head.bn"),
        *CLASSIFIER,
        *(
            pair
            for letter, name in (("p", "detail"), ("d", "boundary"))
            for pair in (
                (f"decode_head.{letter}_head.conv", f"aux_heads.{name}.0.conv"),
                (f"decode_head.{letter}_head.norm", f"aux_heads.{name}.0.bn"),
                (f"decode_head.{letter}_cls_seg", f"aux_heads.{name}.1"),
            )
        ),
    ]


IMPORTER = Importer(source="mmseg", architecture="pidnet", recognise=recognise, renames=renames, backbone=backbone)
