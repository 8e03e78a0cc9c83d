"""U-Net of segmentation-models-pytorch: ours on a named encoder, under other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.smp.encoders import encoder_fields, encoder_renames, unused_tensors
from segatlas.errors import WeightsError
from segatlas.models.unet import UNetConfig


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    decoder = {tuple(name.split(".")[1:4]) for name in file.tensors if name.startswith("decoder.")}
    count = file.count("decoder.blocks.{i}")
    steps = {("blocks", str(step), conv) for step in range(count) for conv in ("conv1", "conv2")}
    if not steps or decoder != steps or not file.has("segmentation_head.0"):
        return None
    if file.stated("decoder_interpolation") not in (None, "nearest"):
        raise WeightsError(
            f"decoder_interpolation = {file.stated('decoder_interpolation')!r}: only 'nearest' is supported"
        )
    return {
        "num_classes": file.shape("segmentation_head.0.weight")[0],
        **encoder_fields(file, maps=(), levels=count),
        "decoder_channels": tuple(file.shape(f"decoder.blocks.{step}.conv2.0.weight")[0] for step in range(count)),
    }


def renames(config: UNetConfig) -> Renames:
    """See `Importer`."""
    parts = (("0", "conv"), ("1", "bn"))
    return [
        *encoder_renames(config.encoder),
        *(
            (f"decoder.blocks.{{i}}.{conv}.{theirs}", f"decoder.{{i}}.{conv}.{ours}")
            for conv in ("conv1", "conv2")
            for theirs, ours in parts
        ),
        ("segmentation_head.0", "classifier"),
    ]


IMPORTER = Importer(
    source="smp",
    architecture="unet",
    recognise=recognise,
    renames=renames,
    constants=lambda config: unused_tensors(config.encoder),
)
