"""U-Net of segmentation-models-pytorch: ours on a named encoder, under other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.smp.encoders import encoder_fields, encoder_renames, unused_tensors
from segatlas.conversion.importers.smp.head import (
    HEAD,
    attention_field,
    decoder_parts,
    head_fields,
    require_batch_norm,
    require_default,
    step_renames,
    unused_scse,
)
from segatlas.models.unet import UNetConfig

_PARTS = {"conv1", "conv2", "attention1", "attention2"}


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    steps = file.count("decoder.blocks.{i}")
    parts = decoder_parts(file, 3)
    rest = {part for part in parts if part[0] != "center"}
    expected = {("blocks", str(step), conv) for step in range(steps) for conv in ("conv1", "conv2")}
    of_steps = all(part[0] == "blocks" and part[-1] in _PARTS for part in rest)
    if not steps or not expected <= rest or not of_steps or not file.has("segmentation_head.0"):
        return None
    center = parts != rest
    if center and not file.has("decoder.center.0.0", "decoder.center.1.0"):
        return None
    require_batch_norm(file)
    require_default(file, decoder_interpolation="nearest")
    return {
        **head_fields(file),
        **encoder_fields(file, maps=(), levels=steps),
        **attention_field(file, "decoder.blocks.0"),
        "center": center,
        "decoder_channels": tuple(file.shape(f"decoder.blocks.{step}.conv2.0.weight")[0] for step in range(steps)),
    }


def renames(config: UNetConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder),
        *step_renames("decoder.blocks.{i}", "decoder.{i}"),
        ("decoder.center.{i}.0", "center.{i}.conv"),
        ("decoder.center.{i}.1", "center.{i}.bn"),
        *HEAD,
    ]


def constants(config: UNetConfig) -> Mapping[str, Tensor]:
    """See `Importer`: the step to full size joins nothing, and does not use the scSE that it has for that."""
    unused = unused_tensors(config.encoder)
    if config.attention and len(config.decoder_channels) > 1:
        unused |= unused_scse(f"decoder.blocks.{len(config.decoder_channels) - 1}", config.decoder_channels[-2])
    return unused


IMPORTER = Importer(
    source="smp",
    architecture="unet",
    recognise=recognise,
    renames=renames,
    constants=constants,
)
