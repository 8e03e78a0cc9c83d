"""Fast-SCNN of MMSegmentation: all up to the fusion as backbone, a head of separable convolutions, two FCN heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER
from segatlas.conversion.importers.renames import Renames
from segatlas.models.fast_scnn import FastSCNNConfig

_DOWN, _DEEP, _FUSION = ("learning_to_downsample", "global_feature_extractor", "feature_fusion")


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has(f"backbone.{_DOWN}", f"backbone.{_DEEP}.ppm", f"backbone.{_FUSION}", "decode_head.convs.1"):
        return None
    first = file.shape(f"backbone.{_DOWN}.conv.conv.weight")
    further = (file.shape(f"backbone.{_DOWN}.dsconv{i}.pointwise_conv.conv.weight")[0] for i in (1, 2))
    groups = (file.shape(f"backbone.{_DEEP}.bottleneck{i}.0.conv.2.conv.weight")[0] for i in (1, 2, 3))
    wide, narrow = file.shape(f"backbone.{_DEEP}.bottleneck1.0.conv.0.conv.weight")[:2]
    aux = file.has("auxiliary_head.1.conv_seg")
    return {
        "num_classes": file.shape("decode_head.conv_seg.weight")[0],
        "in_channels": first[1],
        "shared_channels": (first[0], *further),
        "group_channels": tuple(groups),
        "expansion": wide // narrow,
        "channels": file.shape("decode_head.conv_seg.weight")[1],
        "align_corners": file.setting("model.decode_head.align_corners", False),
        "aux": aux,
        **({"aux_channels": file.shape("auxiliary_head.0.convs.0.conv.weight")[0]} if aux else {}),
    }


def renames(config: FastSCNNConfig) -> Renames:
    """See `Importer`."""
    return [
        (f"backbone.{_DOWN}.conv", "encoder.shared.0"),
        *(
            (f"backbone.{_DOWN}.dsconv{index}.{part}_conv", f"encoder.shared.{index}.{place}")
            for index in (1, 2)
            for place, part in enumerate(("depthwise", "pointwise"))
        ),
        *((f"backbone.{_DEEP}.bottleneck{index + 1}", f"encoder.groups.{index}") for index in range(3)),
        (f"backbone.{_DEEP}.ppm.{{i}}.1", "encoder.ppm.pools.{i}"),
        (f"backbone.{_DEEP}.out", "encoder.ppm.fuse"),
        (f"backbone.{_FUSION}.dwconv", "encoder.fusion.filter"),
        (f"backbone.{_FUSION}.conv_lower_res", "encoder.fusion.deep"),
        (f"backbone.{_FUSION}.conv_higher_res", "encoder.fusion.fine"),
        ("decode_head.convs.{i}.depthwise_conv", "convs.{i}.0"),
        ("decode_head.convs.{i}.pointwise_conv", "convs.{i}.1"),
        *CLASSIFIER,
        *(
            pair
            for index, name in enumerate(("stride32", "stride8"))
            for pair in (
                (f"auxiliary_head.{index}.convs.0", f"aux_heads.{name}.conv"),
                (f"auxiliary_head.{index}.conv_seg", f"aux_heads.{name}.classifier"),
            )
        ),
    ]


IMPORTER = Importer(source="mmseg", architecture="fast_scnn", recognise=recognise, renames=renames)
