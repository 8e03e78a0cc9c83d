"""PPM: the pyramid pooling module.

Paper: Zhao et al. 2017, "Pyramid Scene Parsing Network", section 3.2, https://arxiv.org/abs/1612.01105.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.pooled_fuse import PooledFuse


class SingleCell(nn.Sequential):
    """A 1x1 convolution with bias, and ReLU: for a map of one cell, whose batch norm would see one value an image."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__(nn.Conv2d(in_channels, channels, 1), nn.ReLU(inplace=True))


class PPM(nn.Module):
    """Averages of a map over a few grids, each through a 1x1 convolution, fused with the map by one convolution.

    Args:
        in_channels: of the map.
        channels: of the result.
        scales: cells per side of each grid.
        pool_channels: of each pooled map; None = those of the result.
        norm_single: batch norm after the convolution of a grid of one cell; else that has a bias.
        fuse_kernel_size: of the convolution over all.
        align_corners: how the pooled maps are upsampled.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        scales: Sequence[int] = (1, 2, 3, 6),
        pool_channels: int | None = None,
        norm_single: bool = True,
        fuse_kernel_size: int = 3,
        align_corners: bool = False,
    ):
        super().__init__()
        self.scales = tuple(scales)
        width = channels if pool_channels is None else pool_channels
        self.pools = nn.ModuleList(
            ConvBNReLU(in_channels, width, 1) if scale > 1 or norm_single else SingleCell(in_channels, width)
            for scale in self.scales
        )
        self.fuse = PooledFuse(
            in_channels, [width] * len(self.scales), channels, fuse_kernel_size, align_corners=align_corners
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, channels, h, w)."""
        pooled = [pool(F.adaptive_avg_pool2d(x, scale)) for scale, pool in zip(self.scales, self.pools, strict=True)]
        out: Tensor = self.fuse(x, pooled)
        return out
