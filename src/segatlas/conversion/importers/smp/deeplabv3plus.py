"""DeepLabV3+ of segmentation-models-pytorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.smp.aspp import aspp_fields, aspp_renames
from segatlas.conversion.importers.smp.encoders import encoder_fields, encoder_renames, unused_tensors
from segatlas.conversion.importers.smp.head import HEAD, head_fields, require_default
from segatlas.models.deeplabv3plus import SMP, DeepLabV3PlusConfig

_ASPP = "decoder.aspp.0"


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("segmentation_head.0", "decoder.block1", "decoder.block2", f"{_ASPP}.convs.0.0.weight"):
        return None
    require_default(file, upsampling=4)
    return {
        **{key: value for key, value in SMP.items() if key not in ("output_stride", "encoder_options")},
        **head_fields(file),
        **encoder_fields(file, maps=(file.shape(f"{_ASPP}.convs.0.0.weight")[1],), output_stride=16),
        **aspp_fields(file, _ASPP),
        "channels": file.shape("segmentation_head.0.weight")[1],
        "low_channels": file.shape("decoder.block1.0.weight")[0],
    }


def renames(config: DeepLabV3PlusConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder),
        *aspp_renames(_ASPP, separable=config.separable),
        ("decoder.aspp.1.0", "fuse_convs.0.depthwise"),
        ("decoder.aspp.1.1", "fuse_convs.0.pointwise"),
        ("decoder.aspp.2", "fuse_convs.0.bn"),
        ("decoder.block1.0", "low.conv"),
        ("decoder.block1.1", "low.bn"),
        ("decoder.block2.0.0", "refine.0.depthwise"),
        ("decoder.block2.0.1", "refine.0.pointwise"),
        ("decoder.block2.1", "refine.0.bn"),
        *HEAD,
    ]


IMPORTER = Importer(
    source="smp",
    architecture="deeplabv3plus",
    recognise=recognise,
    renames=renames,
    constants=lambda config: unused_tensors(config.encoder),
)
