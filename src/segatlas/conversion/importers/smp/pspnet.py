"""PSPNet of segmentation-models-pytorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Change, Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.smp.encoders import encoder_fields, encoder_renames, unused_tensors
from segatlas.conversion.importers.smp.head import (
    HEAD,
    head_fields,
    inner_upsampling,
    levels_of,
    require_batch_norm,
    training_setting,
)
from segatlas.models.pspnet import SMP, PSPNetConfig

_POOL = "decoder.psp.blocks.{i}.pool.1"
_FACTOR = 8


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    if not file.has("decoder.psp.blocks.0.pool.1.0.bias", "decoder.psp.blocks.1.pool.1.1", "segmentation_head.0"):
        return None
    require_batch_norm(file)
    encoder = encoder_fields(file, maps=(file.shape("decoder.psp.blocks.0.pool.1.0.weight")[1],), depth=3)
    encoder["encoder"]["output_stride"] = None  # it never dilates
    return {
        **{key: value for key, value in SMP.items() if key not in ("output_stride", "dropout")},
        **head_fields(file),
        **encoder,
        "channels": file.shape("decoder.conv.0.weight")[0],
        "dropout": training_setting(file, "psp_dropout", SMP["dropout"]),
        "inner_upsampling": inner_upsampling(file, _FACTOR, stride=2 ** levels_of(encoder)),
    }


def renames(config: PSPNetConfig) -> Renames:
    """See `Importer`."""
    return [
        *encoder_renames(config.encoder),
        ("decoder.psp.blocks.0.pool.1.0", "ppm.pools.0.0"),
        (f"{_POOL}.0", "ppm.pools.{i}.conv"),
        (f"{_POOL}.1", "ppm.pools.{i}.bn"),
        ("decoder.conv.0", "ppm.fuse.conv"),
        ("decoder.conv.1", "ppm.fuse.bn"),
        *HEAD,
    ]


def other_half_first(kernel: Tensor) -> Tensor:
    """Return a kernel (D, 2 E, 1, 1) with its halves exchanged: theirs begins with the pooled maps, ours ends so."""
    return kernel.roll(kernel.shape[1] // 2, dims=1)


def changes(config: PSPNetConfig) -> Mapping[str, tuple[Change, Change]]:
    """See `Importer`."""
    return {"ppm.fuse.conv.weight": (other_half_first, other_half_first)}


IMPORTER = Importer(
    source="smp",
    architecture="pspnet",
    recognise=recognise,
    renames=renames,
    changes=changes,
    constants=lambda config: unused_tensors(config.encoder),
)
