"""PPM: the pyramid pooling module.

Paper: Zhao et al. 2017, "Pyramid Scene Parsing Network", section 3.2, https://arxiv.org/abs/1612.01105.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.pooled_fuse import PooledFuse


class PPM(nn.Module):
    """Averages of a map over a few grids, each through a 1x1 convolution, fused with the map by a 3x3 convolution.

    Args:
        in_channels: of the map.
        channels: of each pooled map, and of the result.
        scales: cells per side of each grid.
        align_corners: how the pooled maps are upsampled.
    """

    def __init__(
        self, in_channels: int, channels: int, *, scales: Sequence[int] = (1, 2, 3, 6), align_corners: bool = False
    ):
        super().__init__()
        self.scales = tuple(scales)
        self.pools = nn.ModuleList(ConvBNReLU(in_channels, channels, 1) for _ in self.scales)
        self.fuse = PooledFuse(in_channels, [channels] * len(self.scales), channels, align_corners=align_corners)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, channels, h, w)."""
        pooled = [pool(F.adaptive_avg_pool2d(x, scale)) for scale, pool in zip(self.scales, self.pools, strict=True)]
        out: Tensor = self.fuse(x, pooled)
        return out
