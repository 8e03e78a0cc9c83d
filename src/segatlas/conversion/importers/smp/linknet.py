"""LinkNet of segmentation-models-pytorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.smp.encoders import encoder_fields, encoder_renames, unused_tensors
from segatlas.conversion.importers.smp.head import HEAD, head_fields, require_batch_norm
from segatlas.models.linknet import LinkNetConfig

_STEP = "decoder.blocks.{i}.block"
_PARTS = {"0": "narrow", "1": "up", "2": "widen"}


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    steps = file.count(f"{_STEP}.2")
    if not steps or not file.has("decoder.blocks.0.block.0.0", "segmentation_head.0"):
        return None
    require_batch_norm(file)
    return {
        **head_fields(file),
        **encoder_fields(file, maps=(file.shape("decoder.blocks.0.block.0.0.weight")[1],), levels=steps),
        "channels": file.shape(f"decoder.blocks.{steps - 1}.block.2.0.weight")[0],
    }


def renames(config: LinkNetConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder),
        *((f"{_STEP}.{theirs}.0", f"decoder.{{i}}.{ours}.conv") for theirs, ours in _PARTS.items()),
        *((f"{_STEP}.{theirs}.1", f"decoder.{{i}}.{ours}.bn") for theirs, ours in _PARTS.items()),
        *HEAD,
    ]


IMPORTER = Importer(
    source="smp",
    architecture="linknet",
    recognise=recognise,
    renames=renames,
    constants=lambda config: unused_tensors(config.encoder),
)
