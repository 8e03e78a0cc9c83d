"""ASPP: atrous spatial pyramid pooling.

Paper: Chen et al. 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation", section 3.3,
https://arxiv.org/abs/1706.05587.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.pooled_fuse import PooledFuse


class ASPP(nn.Module):
    """Convolutions of several dilations on the same map, and its average, concatenated through one convolution.

    Args:
        branches: the convolutions: (N, C, h, w) -> (N, D_i, h, w) each.
        pool: the convolution of the average: (N, C, 1, 1) -> (N, D_p, 1, 1).
        fuse: over the branches in order, and the pooled map last.
        window: (rows, columns) of the map that are averaged together, at every place; where the map is not made of
            whole such windows, and without one, all of it is averaged.
    """

    def __init__(
        self,
        branches: Iterable[nn.Module],
        pool: nn.Module,
        fuse: PooledFuse,
        *,
        window: tuple[int, int] | None = None,
    ):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.pool = pool
        self.fuse = fuse
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the fused map (N, D, h, w)."""
        pooled = self.pool(self.average(x))
        out: Tensor = self.fuse(torch.cat([branch(x) for branch in self.branches], dim=1), [pooled])
        return out

    def average(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to its average (N, C, 1, 1), or to those of all windows."""
        if self.window is None or any(side % part for side, part in zip(x.shape[-2:], self.window, strict=True)):
            return F.adaptive_avg_pool2d(x, 1)
        return F.avg_pool2d(x, self.window, stride=1)
