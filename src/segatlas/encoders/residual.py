"""The residual encoder of KF-VTON: five blocks, each of which halves the map and adds two convolutions to it.

Paper: Wu et al. 2024, "KF-VTON: Keypoints-Driven Flow Based Virtual Try-On Network", https://doi.org/10.1145/3673903.

Letters: N batch, C image channels, H W image, W' width.

Maps at strides 2, 4, 8, 16, 32 have W', 2 W', 4 W', 4 W', 4 W' channels. The published ones have W' = 64 and instance
norm; `residual_w8` is for tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.family import EncoderFamily, EncoderSettings
from segatlas.errors import UsageError
from segatlas.layers.init import init_weights
from segatlas.layers.residual import ScaledResidual

WIDTHS = {"residual": 64, "residual_w8": 8}
GROWTH = (1, 2, 4, 4, 4)


@dataclass(frozen=True, kw_only=True)
class ResidualOptions:
    """Options of the residual encoder.

    width: channels of the first map, W'; null = those of its name.
    norm: "batch", or "instance" as published: each image by itself.
    """

    width: int | None = None
    norm: Literal["batch", "instance"] = "batch"

    def __post_init__(self) -> None:
        if self.width is not None and self.width < 1:
            raise UsageError(f"width = {self.width}: expected 1 or more, or null")


class ResidualEncoder(PyramidEncoder):
    """Five residual blocks, each of which halves the map."""

    def __init__(self, in_channels: int, width: int, norm: Literal["batch", "instance"]):
        super().__init__()
        self.strides = (2, 4, 8, 16, 32)
        self.channels = tuple(width * factor for factor in GROWTH)
        before = (in_channels, *self.channels[:-1])
        self.blocks = nn.ModuleList(
            ScaledResidual(few, many, "down", norm) for few, many in zip(before, self.channels, strict=True)
        )
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to five maps."""
        maps = []
        for block in self.blocks:
            x = self.run_stage(block, x)
            maps.append(x)
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Return the five blocks."""
        return [[block] for block in self.blocks]


def build(spec: EncoderSettings, in_channels: int) -> ResidualEncoder:
    """Make `residual` or `residual_w8`."""
    options: ResidualOptions = spec.options
    return ResidualEncoder(in_channels, options.width or WIDTHS[spec.name], options.norm)


FAMILY = EncoderFamily(options=ResidualOptions, build=build)
