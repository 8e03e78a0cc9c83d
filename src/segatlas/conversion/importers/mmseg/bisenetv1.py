"""BiSeNet of MMSegmentation: both paths as backbone, an FCN head, two auxiliary heads on the context path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER
from segatlas.conversion.importers.mmseg.inner_backbone import inner_fields, inner_renames
from segatlas.conversion.importers.renames import Renames
from segatlas.errors import WeightsError
from segatlas.models.bisenetv1 import BiSeNetV1Config

_DEEP = "backbone.context_path.backbone"


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has(_DEEP, "backbone.spatial_path.layer4", "backbone.ffm", "decode_head.convs.0"):
        return None
    encoder = inner_fields(file, _DEEP, output_stride=32)
    if encoder is None:
        return None
    spatial = [file.shape(f"backbone.spatial_path.layer{index}.conv.weight") for index in (1, 2, 3, 4)]
    aux = file.has("auxiliary_head.1.conv_seg")
    return {
        **encoder,
        "num_classes": file.shape("decode_head.conv_seg.weight")[0],
        "in_channels": spatial[0][1],
        "spatial_channels": tuple(shape[0] for shape in spatial),
        "context_channels": file.shape("backbone.context_path.gap_conv.1.conv.weight")[0],
        "channels": file.shape("decode_head.convs.0.conv.weight")[0],
        "align_corners": file.setting("model.decode_head.align_corners", False),
        "aux": aux,
        **({"aux_channels": file.shape("auxiliary_head.0.convs.0.conv.weight")[0]} if aux else {}),
    }


def renames(config: BiSeNetV1Config) -> Renames:
    """See `Importer`."""
    if not config.encoder.name.startswith("resnet"):
        raise WeightsError(f"MMSegmentation has no BiSeNet on '{config.encoder.name}'")
    return [
        *inner_renames(config.encoder.name, _DEEP, "encoder.deep"),
        *((f"backbone.spatial_path.layer{index + 1}", f"encoder.spatial.{index}") for index in range(4)),
        *(
            pair
            for stride in (16, 32)
            for pair in (
                (f"backbone.context_path.arm{stride}.conv_layer", f"context.refine{stride}.conv"),
                (f"backbone.context_path.arm{stride}.atten_conv_layer.1.conv", f"context.refine{stride}.gate"),
                (f"backbone.context_path.arm{stride}.atten_conv_layer.1.bn", f"context.refine{stride}.gate_bn"),
                (f"backbone.context_path.conv_head{stride}", f"context.conv{stride}"),
            )
        ),
        ("backbone.context_path.gap_conv.1", "context.pooled"),
        ("backbone.ffm.conv1", "fusion.conv"),
        ("backbone.ffm.conv_atten.0", "fusion.weigh"),
        ("decode_head.convs.0", "conv"),
        *CLASSIFIER,
        *(
            pair
            for index, name in enumerate(("stride8", "stride16"))
            for pair in (
                (f"auxiliary_head.{index}.convs.0", f"aux_heads.{name}.conv"),
                (f"auxiliary_head.{index}.conv_seg", f"aux_heads.{name}.classifier"),
            )
        ),
    ]


IMPORTER = Importer(source="mmseg", architecture="bisenetv1", recognise=recognise, renames=renames)
