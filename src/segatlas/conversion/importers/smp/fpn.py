"""FPN of segmentation-models-pytorch."""

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
    inner_upsampling,
    levels_of,
    require_default,
    training_setting,
)
from segatlas.models.fpn import LEVELS, FPNConfig

_LATERAL = {"decoder.p5": 3, "decoder.p4.skip_conv": 2, "decoder.p3.skip_conv": 1, "decoder.p2.skip_conv": 0}
"""Their names of the convolutions that project the encoder's maps -> our level."""
_LAST = "decoder.seg_blocks.0.block.0.block.0.weight"
_FACTOR = 4


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has(*_LATERAL, _LAST, "segmentation_head.0"):
        return None
    require_default(file, decoder_interpolation="nearest")
    inputs = [file.shape(f"{name}.weight")[1] for name in _LATERAL]
    encoder = encoder_fields(file, maps=inputs[:-1])  # at depth 3 the last takes the image
    channels, joined = file.shape(_LAST)[0], file.shape("segmentation_head.0.weight")[1]
    return {
        **head_fields(file),
        **encoder,
        "channels": channels,
        "pyramid_channels": file.shape("decoder.p5.weight")[0],
        "groups": 32,
        "merge": "add" if joined == channels else "cat",
        "dropout": training_setting(file, "decoder_dropout", 0.2),
        "inner_upsampling": inner_upsampling(file, _FACTOR, stride=2 ** levels_of(encoder) // 2 ** (LEVELS - 1)),
    }


def renames(config: FPNConfig) -> Renames:
    """See `Importer`."""
    lines = [(name, f"lateral.{level}") for name, level in _LATERAL.items()]
    for level in range(LEVELS):
        theirs, ours = f"decoder.seg_blocks.{LEVELS - 1 - level}.block.{{i}}.block", f"levels.{level}.{{i}}"
        lines += [(f"{theirs}.0", f"{ours}.conv"), (f"{theirs}.1", f"{ours}.norm")]
    return [*encoder_renames(config.encoder), *lines, *HEAD]


IMPORTER = Importer(
    source="smp",
    architecture="fpn",
    recognise=recognise,
    renames=renames,
    constants=lambda config: unused_tensors(config.encoder),
)
