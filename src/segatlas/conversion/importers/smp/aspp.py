"""The ASPP of segmentation-models-pytorch: that of its DeepLabV3 and DeepLabV3+."""

from __future__ import annotations

from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.renames import Renames
from segatlas.conversion.importers.smp.head import training_setting

_POOLED = 4
"""Place of the pooled branch, behind one 1x1 branch and three dilated ones."""


def aspp_fields(file: ForeignWeights, aspp: str) -> dict[str, Any]:
    """Return the fields `rates`, `separable` and `aspp_dropout`; aspp is the beginning of its tensors' names."""
    return {
        "rates": tuple(file.setting("decoder_atrous_rates", (12, 24, 36))),
        "separable": file.has(f"{aspp}.convs.1.0.1.weight"),
        "aspp_dropout": training_setting(file, "decoder_aspp_dropout", 0.5),
    }


def aspp_renames(aspp: str, *, separable: bool) -> Renames:
    """Return the lines of an ASPP; aspp is the beginning of its tensors' names."""
    halves = {"0.0": "depthwise", "0.1": "pointwise"} if separable else {"0": "conv"}
    return [
        (f"{aspp}.convs.0.0", "aspp.branches.0.conv"),
        (f"{aspp}.convs.0.1", "aspp.branches.0.bn"),
        (f"{aspp}.convs.{_POOLED}.1", "aspp.pool.conv"),
        (f"{aspp}.convs.{_POOLED}.2", "aspp.pool.bn"),
        *((f"{aspp}.convs.{{i}}.{theirs}", f"aspp.branches.{{i}}.{ours}") for theirs, ours in halves.items()),
        (f"{aspp}.convs.{{i}}.1", "aspp.branches.{i}.bn"),
        (f"{aspp}.project.0", "aspp.fuse.conv"),
        (f"{aspp}.project.1", "aspp.fuse.bn"),
    ]
