"""The ASPP of MMSegmentation's heads (`ASPPHead` and `DepthwiseSeparableASPPHead`): `segatlas.layers.aspp`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.importer import Change
from segatlas.conversion.importers.renames import Renames
from segatlas.errors import WeightsError

ASPP_PARTS = {"conv_seg", "image_pool", "aspp_modules", "bottleneck"}
"""The parts of a head that is an ASPP and nothing else."""

ASPP: Renames = (
    ("decode_head.image_pool.1", "aspp.pool"),
    ("decode_head.bottleneck", "aspp.fuse"),
    ("decode_head.aspp_modules.{i}", "aspp.branches.{i}"),
)


def separable_parts(theirs: str, ours: str) -> Renames:
    """Return the renames of a separable convolution."""
    return [
        (f"{theirs}.depthwise_conv.conv", f"{ours}.depthwise"),
        (f"{theirs}.depthwise_conv.bn", f"{ours}.depthwise_bn"),
        (f"{theirs}.pointwise_conv.conv", f"{ours}.pointwise"),
        (f"{theirs}.pointwise_conv.bn", f"{ours}.bn"),
    ]


def aspp_fields(file: ForeignWeights) -> Mapping[str, Any]:
    """Return the config fields that the ASPP tells.

    Raises:
        WeightsError: its branches are others than one of 1x1 and the rest of 3x3.
    """
    first, *rates = file.setting("model.decode_head.dilations", (1, 12, 24, 36))
    branches = file.count("decode_head.aspp_modules.{i}")
    if first != 1 or 1 in rates or len(rates) + 1 != branches:
        raise WeightsError(
            f"an ASPP of {branches} branches with dilations {[first, *rates]}; expected as many dilations, "
            "the first of them 1 and no other"
        )
    return {"channels": file.shape("decode_head.bottleneck.conv.weight")[0], "rates": tuple(rates)}


def aspp_changes(channels: int) -> Mapping[str, tuple[Change, Change]]:
    """Return the changes for an ASPP of `channels`: theirs has the pooled map first among what is fused, ours last."""
    return {
        "aspp.fuse.conv.weight": (lambda kernel: kernel.roll(-channels, 1), lambda kernel: kernel.roll(channels, 1))
    }
