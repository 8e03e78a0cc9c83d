"""Feature pyramids in MMSegmentation's checkpoints: `FPN` as neck, `FPNHead` as head on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.renames import Renames

_NECK: Renames = (("neck.lateral_convs.{i}.conv", "neck.lateral.{i}"), ("neck.fpn_convs.{i}.conv", "neck.output.{i}"))


def is_pyramid(file: ForeignWeights, head: str) -> bool:
    """Tell whether the file has a feature pyramid, and on it an `FPNHead` under the name `head`."""
    return file.has("neck.fpn_convs.0.conv.weight", f"{head}.scale_heads.0.0.conv.weight", f"{head}.conv_seg.weight")


def pyramid_fields(file: ForeignWeights, head: str) -> Mapping[str, Any]:
    """Return the config fields of pyramid and head."""
    width, neck = file.shape(f"{head}.scale_heads.0.0.conv.weight")[:2]
    return {"levels": file.count("neck.fpn_convs.{i}"), "neck_channels": neck, "channels": width}


def pyramid_renames(head: str) -> Renames:
    """Return the table of both. In theirs, every second entry of a level is an upsampling, which has no parameters."""
    convs = [(f"{head}.scale_heads.{{i}}.{2 * k}", f"head.levels.{{i}}.{k}") for k in range(3)]
    return [*_NECK, *convs]
