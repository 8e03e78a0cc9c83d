"""Averages of a map over windows of several sizes, for networks whose context is gathered on their smallest map.

Paper: Hong et al. 2021, "Deep Dual-resolution Networks for Real-time and Accurate Semantic Segmentation of Road
Scenes", https://arxiv.org/abs/2101.06085, section III-C.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.conv import NormReLUConv

WINDOWS = ((5, 2), (9, 4), (17, 8))
"""Size and stride of each window; the next larger one is the whole map."""


class PooledScales(nn.Module):
    """The map, and its averages over growing windows, each through a 1x1 convolution and upsampled to its size."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.scales = nn.ModuleList(NormReLUConv(in_channels, channels, 1) for _ in range(len(WINDOWS) + 2))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (N, in_channels, h, w) to five maps (N, channels, h, w), the finest first."""
        first, *further, whole = self.scales
        maps = [first(x)]
        for (size, stride), scale in zip(WINDOWS, further, strict=True):
            maps.append(self._upsampled(scale(F.avg_pool2d(x, size, stride, padding=size // 2)), x))
        return [*maps, self._upsampled(whole(F.adaptive_avg_pool2d(x, 1)), x)]

    @staticmethod
    def _upsampled(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


class DAPPM(nn.Module):
    """Deep aggregation pyramid pooling: each scale is added to the one before and convolved, then all are fused."""

    def __init__(self, in_channels: int, channels: int, out_channels: int):
        super().__init__()
        self.pools = PooledScales(in_channels, channels)
        self.processes = nn.ModuleList(NormReLUConv(channels, channels) for _ in range(len(WINDOWS) + 1))
        self.fuse = NormReLUConv(channels * (len(WINDOWS) + 2), out_channels, 1)
        self.shortcut = NormReLUConv(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        first, *further = self.pools(x)
        maps = [first]
        for pooled, process in zip(further, self.processes, strict=True):
            maps.append(process(pooled + maps[-1]))
        out: Tensor = self.fuse(torch.cat(maps, dim=1)) + self.shortcut(x)
        return out
