"""STDC-Seg of MMSegmentation: encoder and context path as backbone, an FCN head, three auxiliary heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.models.stdc import STDCConfig

_BLOCKS = {(2, 2, 2): "stdc1", (4, 5, 3): "stdc2"}
_CONSTANTS = ("auxiliary_head.2.laplacian_kernel", "auxiliary_head.2.fusion_kernel")
"""Fixed kernels of the detail loss, which belongs to no network here."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("backbone.backbone.stages", "backbone.arms", "backbone.ffm", "decode_head.convs.0"):
        return None
    blocks = tuple(file.count(f"backbone.backbone.stages.{stage}.{{i}}") for stage in (2, 3, 4))
    if blocks not in _BLOCKS:
        return None
    aux = file.has("auxiliary_head.2.conv_seg")
    return {
        "num_classes": file.shape("decode_head.conv_seg.weight")[0],
        "in_channels": file.shape("backbone.backbone.stages.0.conv.weight")[1],
        "encoder": _BLOCKS[blocks],
        "context_channels": file.shape("backbone.conv_avg.conv.weight")[0],
        "channels": file.shape("decode_head.convs.0.conv.weight")[0],
        "align_corners": file.setting("model.decode_head.align_corners", True),
        "aux": aux,
        **(
            {
                "aux_channels": file.shape("auxiliary_head.0.convs.0.conv.weight")[0],
                "detail_channels": file.shape("auxiliary_head.2.conv_seg.weight")[0],
            }
            if aux
            else {}
        ),
    }


def renames(config: STDCConfig) -> Renames:
    """See `Importer`."""
    heads = ("stride8", "stride16", "detail")
    return [
        ("backbone.backbone.stages", "encoder.blocks"),
        ("backbone.conv_avg", "context.pooled"),
        *(
            pair
            for index, stride in enumerate((32, 16))
            for pair in (
                (f"backbone.arms.{index}.conv_layer", f"context.refine{stride}.conv"),
                (f"backbone.arms.{index}.atten_conv_layer.1.conv", f"context.refine{stride}.gate"),
                (f"backbone.arms.{index}.atten_conv_layer.1.bn", f"context.refine{stride}.gate_bn"),
                (f"backbone.convs.{index}", f"context.conv{stride}"),
            )
        ),
        ("backbone.ffm.conv0", "fusion.conv"),
        ("backbone.ffm.attention.1.conv", "fusion.squeeze"),
        ("backbone.ffm.attention.2.conv", "fusion.excite"),
        ("decode_head.convs.0", "conv"),
        ("decode_head.conv_seg", "classifier"),
        *((f"auxiliary_head.{index}.convs.0", f"aux_heads.{name}.conv") for index, name in enumerate(heads)),
        *((f"auxiliary_head.{index}.conv_seg", f"aux_heads.{name}.classifier") for index, name in enumerate(heads)),
    ]


def constants(config: STDCConfig) -> Mapping[str, Tensor]:
    """See `Importer`."""
    if not config.aux:
        return {}
    laplacian = torch.full((1, 1, 3, 3), -1.0)
    laplacian[0, 0, 1, 1] = 8.0
    return dict(zip(_CONSTANTS, (laplacian, torch.tensor([0.6, 0.3, 0.1]).view(1, 3, 1, 1)), strict=True))


IMPORTER = Importer(
    source="mmseg",
    architecture="stdc",
    recognise=recognise,
    renames=renames,
    dropped=_CONSTANTS,
    constants=constants,
)
