"""PAN of segmentation-models-pytorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.smp.encoders import encoder_fields, encoder_renames, unused_tensors
from segatlas.conversion.importers.smp.head import HEAD, head_fields, require_default
from segatlas.models.pan import PANConfig

_PARTS = {
    "decoder.fpa.branch1.1": "attention.pooled",
    "decoder.fpa.mid.0": "attention.own",
    "decoder.fpa.down1.1": "attention.at_half",
    "decoder.fpa.down2.1": "attention.at_quarter",
    "decoder.fpa.down3.1": "attention.at_eighth.0",
    "decoder.fpa.down3.2": "attention.at_eighth.1",
    "decoder.fpa.conv2": "attention.from_quarter",
    "decoder.fpa.conv1": "attention.from_half",
}
_MOST = 3
"""Steps upward at most."""


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has(*_PARTS, "decoder.gau1.conv2.conv", "segmentation_head.0"):
        return None
    require_default(file, decoder_interpolation="bilinear", upsampling=4)
    steps = file.count("decoder.gau{i}")
    skips = [file.shape(f"decoder.gau{step}.conv2.conv.weight")[1] for step in range(steps, 0, -1)]
    channels, deepest = file.shape("decoder.fpa.mid.0.conv.weight")[:2]
    return {
        **head_fields(file),
        **encoder_fields(file, maps=(deepest, *skips), levels=steps + 2, output_stride=16),
        "channels": channels,
    }


def renames(config: PANConfig) -> Renames:
    """See `Importer`."""
    lines = list(_PARTS.items())
    for step in range(_MOST):
        theirs, ours = f"decoder.gau{step + 1}", f"upward.{step}"
        lines += [(f"{theirs}.conv1.1", f"{ours}.gate"), (f"{theirs}.conv2", f"{ours}.skip")]
    return [*encoder_renames(config.encoder), *lines, *HEAD]


IMPORTER = Importer(
    source="smp",
    architecture="pan",
    recognise=recognise,
    renames=renames,
    constants=lambda config: unused_tensors(config.encoder),
)
