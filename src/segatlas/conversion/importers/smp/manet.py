"""MA-Net of segmentation-models-pytorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.smp.encoders import encoder_fields, encoder_renames, unused_tensors
from segatlas.conversion.importers.smp.head import (
    HEAD,
    head_fields,
    require_batch_norm,
    require_default,
    step_renames,
)
from segatlas.models.manet import MANetConfig

_STEP = "decoder.blocks.{i}"


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    steps = file.count(_STEP)
    if not steps or not file.has("decoder.center.top_conv", "decoder.blocks.0.hl_conv.1.0", "segmentation_head.0"):
        return None
    require_batch_norm(file)
    require_default(file, decoder_interpolation="nearest")
    narrowing = [f"decoder.blocks.{step}.hl_conv.1.0.weight" for step in range(steps)]
    skips = [file.shape(name)[0] for name in narrowing if name in file.tensors]
    attention_channels, deepest = file.shape("decoder.center.top_conv.weight")[:2]
    return {
        **head_fields(file),
        **encoder_fields(file, maps=(deepest, *skips), levels=steps),
        "attention_channels": attention_channels,
        "decoder_channels": tuple(file.shape(f"decoder.blocks.{step}.conv2.0.weight")[0] for step in range(steps)),
    }


def renames(config: MANetConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder),
        ("decoder.center.center_conv", "attention.query"),
        ("decoder.center.top_conv", "attention.key"),
        ("decoder.center.bottom_conv", "attention.value"),
        ("decoder.center.out_conv", "attention.out"),
        (f"{_STEP}.hl_conv.{{j}}.0", "decoder.{i}.narrow.{j}.conv"),
        (f"{_STEP}.hl_conv.{{j}}.1", "decoder.{i}.narrow.{j}.bn"),
        (f"{_STEP}.SE_ll", "decoder.{i}.low_gate"),
        (f"{_STEP}.SE_hl", "decoder.{i}.high_gate"),
        *step_renames(_STEP, "decoder.{i}"),
        *HEAD,
    ]


IMPORTER = Importer(
    source="smp",
    architecture="manet",
    recognise=recognise,
    renames=renames,
    constants=lambda config: unused_tensors(config.encoder),
)
