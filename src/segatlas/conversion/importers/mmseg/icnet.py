"""ICNet of MMSegmentation: three branches as backbone, their fusion as neck, an FCN head and two beside it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Change, Importer
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER
from segatlas.conversion.importers.mmseg.inner_backbone import inner_fields, inner_renames
from segatlas.conversion.importers.renames import Renames
from segatlas.errors import WeightsError
from segatlas.models.icnet import ICNetConfig

POOLED_SCALES = 4


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("backbone.conv_sub1", "backbone.psp_bottleneck", "neck.cff_12", "decode_head.convs.0"):
        return None
    encoder = inner_fields(file, "backbone.backbone", output_stride=8)
    if encoder is None:
        return None
    light = file.shape("backbone.conv_sub1.0.conv.weight")
    return {
        **encoder,
        "num_classes": file.shape("decode_head.conv_seg.weight")[0],
        "in_channels": light[1],
        "light_channels": light[0],
        "pool_channels": file.shape("backbone.psp_bottleneck.conv.weight")[0],
        "branch_channels": file.shape("backbone.conv_sub4.conv.weight")[0],
        "channels": file.shape("decode_head.convs.0.conv.weight")[0],
        "align_corners": file.setting("model.decode_head.align_corners", False),
        "aux": file.has("auxiliary_head.1.conv_seg"),
    }


def renames(config: ICNetConfig) -> Renames:
    """See `Importer`."""
    if not config.encoder.name.startswith("resnet"):
        raise WeightsError(f"MMSegmentation has no ICNet on '{config.encoder.name}'")
    return [
        *inner_renames(config.encoder.name, "backbone.backbone", "encoder.resnet"),
        ("backbone.conv_sub1", "encoder.light"),
        ("backbone.conv_sub2", "encoder.middle"),
        ("backbone.conv_sub4", "encoder.deep"),
        ("backbone.psp_modules.{i}.1", "encoder.ppm.pools.{i}"),
        ("backbone.psp_bottleneck", "encoder.ppm.fuse"),
        *(
            (f"neck.cff_{theirs}.conv_{part}", f"fuse{stride}.{ours}")
            for theirs, stride in (("24", 16), ("12", 8))
            for part, ours in (("low", "coarse"), ("high", "fine"))
        ),
        ("decode_head.convs.0", "conv"),
        *CLASSIFIER,
        *(
            pair
            for index, name in enumerate(("stride16", "stride8"))
            for pair in (
                (f"auxiliary_head.{index}.convs.0", f"aux_heads.{name}.conv"),
                (f"auxiliary_head.{index}.conv_seg", f"aux_heads.{name}.classifier"),
            )
        ),
    ]


def changes(config: ICNetConfig) -> Mapping[str, tuple[Change, Change]]:
    """See `Importer`: they have the pooled maps before the map itself, ours come after it."""
    pooled = config.pool_channels * POOLED_SCALES
    to_ours: Change = partial(torch.roll, shifts=-pooled, dims=1)
    to_theirs: Change = partial(torch.roll, shifts=pooled, dims=1)
    return {"encoder.ppm.fuse.conv.weight": (to_ours, to_theirs)}


IMPORTER = Importer(source="mmseg", architecture="icnet", recognise=recognise, renames=renames, changes=changes)
