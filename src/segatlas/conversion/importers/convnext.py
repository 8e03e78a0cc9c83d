"""ConvNeXt in foreign files: which of timm's networks a file has. Norms of its maps belong to the decoder in ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.conversion.importers.renames import Renames
from segatlas.errors import WeightsError

STAGES = 4

_SIZES: dict[str, tuple[int, tuple[int, ...]]] = {
    "convnext_tiny": (96, (3, 3, 9, 3)),
    "convnext_small": (96, (3, 3, 27, 3)),
    "convnext_base": (128, (3, 3, 27, 3)),
    "convnext_large": (192, (3, 3, 27, 3)),
    "convnext_xlarge": (256, (3, 3, 27, 3)),
}
"""Our name, which is timm's -> channels of the first stage, blocks of the four."""


def convnext_names() -> tuple[str, ...]:
    """Return our names of those that are read."""
    return tuple(_SIZES)


def convnext_fields(file: ForeignWeights, first: str, scale: str) -> Mapping[str, Any] | None:
    """Return the config fields of the encoder and of the norms behind it, None where the file has no ConvNeXt.

    Args:
        file: the file.
        first: their name of the first kernel.
        scale: their name of a block's factors of channels, with `{s}` for the stage from 0, and `{i}`.

    Raises:
        WeightsError: none of the published sizes.
    """
    if not file.has(first, scale.replace("{s}", "0").replace("{i}", "0")):
        return None
    width, channels = file.shape(first)[:2]
    depths = tuple(file.count(scale.replace("{s}", str(stage))) for stage in range(STAGES))
    name = next((name for name, size in _SIZES.items() if size == (width, depths)), None)
    if name is None:
        raise WeightsError(f"a ConvNeXt of width {width} with {list(depths)} blocks is none of the published")
    return {"encoder": name, "in_channels": channels, "norm_maps": True}


def norm_renames(norms: Sequence[str]) -> Renames:
    """Return the table of the norms of maps, given their names of them."""
    return [(name, f"norms.{index}") for index, name in enumerate(norms)]
