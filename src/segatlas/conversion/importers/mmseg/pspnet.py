"""PSPNet of MMSegmentation: `PSPHead` as decode head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.mmseg.backbones import (
    encoder_changes,
    encoder_constants,
    encoder_fields,
    encoder_renames,
    encoder_stacks,
)
from segatlas.conversion.importers.mmseg.heads import CLASSIFIER, FCN_AUX, head_fields
from segatlas.conversion.importers.renames import Renames
from segatlas.models.pspnet import PSPNetConfig


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    parts = {name.split(".")[1] for name in file.tensors if name.startswith("decode_head.")}
    if parts != {"conv_seg", "psp_modules", "bottleneck"} or file.has("neck"):
        return None
    encoder = encoder_fields(file, output_stride=8)
    if encoder is None:
        return None
    return {
        **encoder,
        **head_fields(file),
        "channels": file.shape("decode_head.bottleneck.conv.weight")[0],
        "pool_scales": tuple(file.setting("model.decode_head.pool_scales", (1, 2, 3, 6))),
    }


def renames(config: PSPNetConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder.name),
        ("decode_head.psp_modules.{i}.1", "ppm.pools.{i}"),
        ("decode_head.bottleneck", "ppm.fuse"),
        *CLASSIFIER,
        *FCN_AUX,
    ]


IMPORTER = Importer(
    source="mmseg",
    architecture="pspnet",
    recognise=recognise,
    renames=renames,
    changes=encoder_changes,
    stacks=encoder_stacks,
    constants=encoder_constants,
)
