"""Parts that the two-branch networks (DDRNet, PIDNet) share in MMSegmentation's checkpoints."""

from __future__ import annotations

from segatlas.conversion.importers.renames import Renames
from segatlas.layers.pooled_scales import WINDOWS


def stem_renames(*downsample: str) -> Renames:
    """Return the table of the stem; `downsample`: convolution and norm of a shortcut, if called otherwise."""
    return [
        *(
            (f"backbone.stem.{{i}}.{{j}}.{theirs}", f"encoder.stem.{{i}}.{{j}}.downsample.{ours}")
            for theirs, ours in zip(downsample, ("conv", "bn"), strict=False)
        ),
        ("backbone.stem", "encoder.stem"),
    ]


def dappm_renames(theirs: str, ours: str) -> Renames:
    """Return the table of the pooling: behind an average they have the convolution at index 1."""
    return [
        (f"{theirs}.scales.0", f"{ours}.pools.scales.0"),
        *((f"{theirs}.scales.{index}.1", f"{ours}.pools.scales.{index}") for index in range(1, len(WINDOWS) + 2)),
        (f"{theirs}.processes", f"{ours}.processes"),
        (f"{theirs}.compression", f"{ours}.fuse"),
        (f"{theirs}.shortcut", f"{ours}.shortcut"),
    ]
