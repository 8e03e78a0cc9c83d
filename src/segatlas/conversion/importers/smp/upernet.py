"""UPerNet of segmentation-models-pytorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.smp.encoders import encoder_fields, encoder_renames, unused_tensors
from segatlas.conversion.importers.smp.head import HEAD, head_fields, require_batch_norm, require_default
from segatlas.models.upernet import SMP, UPerNetConfig


def recognise(file: ForeignWeights) -> Mapping[str, Any] | None:
    """See `Importer`."""
    maps = file.count("decoder.feature_norms.{i}")
    if not maps or not file.has("decoder.psp.out_conv.0", "decoder.fusion_block.0", "segmentation_head.0"):
        return None
    require_batch_norm(file)
    require_default(file, upsampling=4)
    widths = [file.shape(f"decoder.feature_norms.{index}.weight")[0] for index in range(maps - 1, -1, -1)]
    return {
        **SMP,
        **head_fields(file),
        **encoder_fields(file, maps=widths, levels=maps + 1),
        "levels": maps,
        "channels": file.shape("decoder.fusion_block.0.weight")[0],
    }


def renames(config: UPerNetConfig) -> Renames:
    """See `Importer`."""
    lines = [("decoder.feature_norms", "norms")]
    for level in range(config.levels - 1):
        theirs = config.levels - 2 - level  # the coarsest first
        lines += [
            (f"decoder.fpn_lateral_blocks.{theirs}.conv_norm_relu.0", f"lateral.{level}.conv"),
            (f"decoder.fpn_lateral_blocks.{theirs}.conv_norm_relu.1", f"lateral.{level}.bn"),
            (f"decoder.fpn_conv_blocks.{theirs}.0", f"output.{level}.conv"),
            (f"decoder.fpn_conv_blocks.{theirs}.1", f"output.{level}.bn"),
        ]
    return [
        *encoder_renames(config.encoder),
        *lines,
        ("decoder.psp.blocks.{i}.1.0", "ppm.pools.{i}.conv"),
        ("decoder.psp.blocks.{i}.1.1", "ppm.pools.{i}.bn"),
        ("decoder.psp.out_conv.0", "ppm.fuse.conv"),
        ("decoder.psp.out_conv.1", "ppm.fuse.bn"),
        ("decoder.fusion_block.0", "fuse.conv"),
        ("decoder.fusion_block.1", "fuse.bn"),
        *HEAD,
    ]


IMPORTER = Importer(
    source="smp",
    architecture="upernet",
    recognise=recognise,
    renames=renames,
    constants=lambda config: unused_tensors(config.encoder),
)
