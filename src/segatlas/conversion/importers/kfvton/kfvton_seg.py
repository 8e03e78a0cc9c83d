"""KF-VTON's segmenter under its authors' names, without the layers that it makes and never runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Change, Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.errors import WeightsError
from segatlas.models.kfvton_seg import KFVTONSegConfig

LINEAR = "co_attention.linear.weight"


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("pose_Encoder.0.scale.weight", "cloth_Encoder.0.scale.weight", "Coattention.linear_e.weight"):
        return None
    width, in_channels = file.shape("pose_Encoder.0.scale.weight")[:2]
    return {
        "num_classes": file.shape("out_layer.scale.weight")[0],
        "in_channels": in_channels,
        "garment_channels": file.shape("cloth_Encoder.0.scale.weight")[1],
        "width": width,
    }


def renames(config: KFVTONSegConfig) -> Renames:
    """See `Importer`.

    Raises:
        WeightsError: the network ends in a plain convolution, which theirs has not.
    """
    if config.plain_head:
        raise WeightsError("plain_head = true: the authors' network has no such head")
    return [
        ("pose_Encoder.{i}", "encoder.blocks.{i}"),
        ("cloth_Encoder.{i}", "garment_encoder.blocks.{i}"),
        ("Coattention.linear_e", "co_attention.linear"),
        ("Coattention.gate", "co_attention.gate"),
        ("Coattention.conv1", "co_attention.first"),
        ("Coattention.conv2", "co_attention.second"),
        ("conv1.3", "laterals.0.conv"),
        ("conv1.2", "laterals.1.conv"),
        ("conv2.3", "garment_laterals.0.conv"),
        ("conv2.2", "garment_laterals.1.conv"),
        ("Decoder.{i}.scale.1", "decoder.{i}.scale"),
        ("Decoder.{i}.block", "decoder.{i}.block"),
        ("out_layer", "out"),
    ]


def changes(config: KFVTONSegConfig) -> Mapping[str, tuple[Change, Change]]:
    """See `Importer`: their matrix is a 1x1 convolution here."""
    return {LINEAR: (lambda tensor: tensor[:, :, None, None], lambda tensor: tensor.flatten(1))}


IMPORTER = Importer(
    source="kfvton",
    architecture="kfvton_seg",
    recognise=recognise,
    renames=renames,
    changes=changes,
    dropped=("conv1.0", "conv1.1", "conv2.0", "conv2.1", "Coattention.bn1", "Coattention.bn2"),
)
