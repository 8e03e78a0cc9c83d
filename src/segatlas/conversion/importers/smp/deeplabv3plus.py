"""DeepLabV3+ of segmentation-models-pytorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.smp.encoders import encoder_fields, encoder_renames, unused_tensors
from segatlas.models.deeplabv3plus import SMP, DeepLabV3PlusConfig

_FIRST_BRANCH = "decoder.aspp.0.convs.0.0.weight"
_SEPARABLE = "decoder.aspp.0.convs.1.0.1.weight"  # the pointwise half of the first dilated branch


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("segmentation_head.0", "decoder.block1", "decoder.block2", _SEPARABLE):
        return None
    fields = {key: value for key, value in SMP.items() if key not in ("output_stride", "encoder_options")}
    return {
        **fields,
        **encoder_fields(file, maps=(file.shape(_FIRST_BRANCH)[1],), output_stride=16),
        "num_classes": file.shape("segmentation_head.0.weight")[0],
        "channels": file.shape("segmentation_head.0.weight")[1],
        "rates": tuple(file.setting("decoder_atrous_rates", (12, 24, 36))),
        "low_channels": file.shape("decoder.block1.0.weight")[0],
    }


def renames(config: DeepLabV3PlusConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder),
        ("decoder.aspp.0.convs.0.0", "aspp.branches.0.conv"),
        ("decoder.aspp.0.convs.0.1", "aspp.branches.0.bn"),
        ("decoder.aspp.0.convs.4.1", "aspp.pool.conv"),
        ("decoder.aspp.0.convs.4.2", "aspp.pool.bn"),
        ("decoder.aspp.0.convs.{i}.0.0", "aspp.branches.{i}.depthwise"),
        ("decoder.aspp.0.convs.{i}.0.1", "aspp.branches.{i}.pointwise"),
        ("decoder.aspp.0.convs.{i}.1", "aspp.branches.{i}.bn"),
        ("decoder.aspp.0.project.0", "aspp.fuse.conv"),
        ("decoder.aspp.0.project.1", "aspp.fuse.bn"),
        ("decoder.aspp.1.0", "fuse_convs.0.depthwise"),
        ("decoder.aspp.1.1", "fuse_convs.0.pointwise"),
        ("decoder.aspp.2", "fuse_convs.0.bn"),
        ("decoder.block1.0", "low.conv"),
        ("decoder.block1.1", "low.bn"),
        ("decoder.block2.0.0", "refine.0.depthwise"),
        ("decoder.block2.0.1", "refine.0.pointwise"),
        ("decoder.block2.1", "refine.0.bn"),
        ("segmentation_head.0", "classifier"),
    ]


IMPORTER = Importer(
    source="smp",
    architecture="deeplabv3plus",
    recognise=recognise,
    renames=renames,
    constants=lambda config: unused_tensors(config.encoder),
)
