"""Hourglass: a small U-Net that gives its input back beside what it made of it.

Papers: Newell et al. 2016, "Stacked Hourglass Networks", https://arxiv.org/abs/1603.06937; in the form of Siarohin et
al. 2019, "First Order Motion Model", https://arxiv.org/abs/2003.00196, which Wu et al. 2024, "KF-VTON", have too.

Letters: N batch, C channels that come in, E channels of the finest step, h w map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.norm import BatchNorm2d


class ConvNorm(nn.Module):
    """A 3x3 convolution with bias, then batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm = BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        return F.relu(self.norm(self.conv(x)))


class Hourglass(nn.Module):
    """Steps down, each averaged to half the size, and as many up, each beside the map of its size on the way down.

    Args:
        in_channels: C.
        width: E; step i down has min(widest, E 2^(i + 1)) channels, the one up to its size min(widest, E 2^i).
        depth: steps. Maps need 2^depth pixels a side at least.
        widest: most channels of a step.
    """

    def __init__(self, in_channels: int, width: int, depth: int = 3, widest: int = 256):
        super().__init__()
        widths = [min(widest, width * 2**step) for step in range(depth + 1)]
        before = [in_channels, *widths[1:]]
        self.down = nn.ModuleList(ConvNorm(before[step], widths[step + 1]) for step in range(depth))
        deepest_first = range(depth - 1, -1, -1)
        joined = {step: widths[step + 1] + (0 if step == depth - 1 else before[step + 1]) for step in deepest_first}
        self.up = nn.ModuleList(ConvNorm(joined[step], widths[step]) for step in deepest_first)
        self.channels = tuple(widths[step] + before[step] for step in deepest_first)
        """Channels of each map of `stages`; the last is E + C."""

    def stages(self, x: Tensor) -> list[Tensor]:
        """Map (N, C, h, w) to the maps of all steps up, coarsest first; the last is of the size of x."""
        kept = [x]
        for step in self.down:
            kept.append(F.avg_pool2d(step(kept[-1]), 2))
        out, maps = kept.pop(), []
        for step in self.up:
            skip = kept.pop()
            out = torch.cat([step(F.interpolate(out, size=skip.shape[-2:], mode="nearest")), skip], dim=1)
            maps.append(out)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, E + C, h, w)."""
        return self.stages(x)[-1]
