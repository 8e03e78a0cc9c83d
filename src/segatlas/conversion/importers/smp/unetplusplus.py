"""U-Net++ of segmentation-models-pytorch, whose `x_D_L` is the node D from the right end of row L."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from segatlas.build.network import shapes_only
from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.smp.encoders import encoder_fields, encoder_renames, unused_tensors
from segatlas.conversion.importers.smp.head import (
    HEAD,
    attention_field,
    head_fields,
    require_batch_norm,
    require_default,
    step_renames,
    unused_scse,
)
from segatlas.encoders.spec import create_encoder
from segatlas.models.unetplusplus import UNetPlusPlusConfig


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    rows = file.count("decoder.blocks.x_0_{i}")
    if not rows or not file.has("decoder.blocks.x_0_0.conv1.0", "segmentation_head.0"):
        return None
    require_batch_norm(file)
    require_default(file, decoder_interpolation="nearest")
    return {
        **head_fields(file),
        **encoder_fields(file, maps=(), levels=rows),
        **attention_field(file, "decoder.blocks.x_0_0"),
        "decoder_channels": tuple(file.shape(f"decoder.blocks.x_0_{row}.conv2.0.weight")[0] for row in range(rows)),
    }


def renames(config: UNetPlusPlusConfig) -> Renames:
    """See `Importer`."""
    with shapes_only():
        skips = len(create_encoder(config.encoder).channels) - 1
    nodes = [(row, column) for row in range(skips) for column in range(row + 1)]
    nodes += [(row, row) for row in range(skips, len(config.decoder_channels))]  # rows without a map have the last only
    lines: list[tuple[str, str]] = []
    for row, column in nodes:
        ours = f"rows.{row}.{column if row < skips else 0}"
        lines += step_renames(f"decoder.blocks.x_{row - column}_{row}", ours)
    return [*encoder_renames(config.encoder), *lines, *HEAD]


def constants(config: UNetPlusPlusConfig) -> Mapping[str, Tensor]:
    """See `Importer`: the node at full size joins nothing; behind a VGG stand two convolutions that are never run."""
    unused = unused_tensors(config.encoder)
    last = len(config.decoder_channels) - 1
    if config.attention and last:
        unused |= unused_scse(f"decoder.blocks.x_0_{last}", config.decoder_channels[-2])
    if config.encoder.name.startswith("vgg"):
        with shapes_only():
            width = create_encoder(config.encoder).channels[-1]
        for index in (0, 1):
            name = f"decoder.center.{index}"
            unused[f"{name}.0.weight"] = torch.zeros(()).expand(width, width, 3, 3)
            for part in ("weight", "bias", "running_mean", "running_var"):
                unused[f"{name}.1.{part}"] = torch.zeros(()).expand(width)
            unused[f"{name}.1.num_batches_tracked"] = torch.tensor(0)
    return unused


IMPORTER = Importer(
    source="smp",
    architecture="unetplusplus",
    recognise=recognise,
    renames=renames,
    constants=constants,
)
