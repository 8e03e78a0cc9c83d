"""Stochastic depth."""

from __future__ import annotations

from torch import Tensor, nn


class DropPath(nn.Module):
    """While training, drops the whole residual branch of a sample with probability `rate` (Huang et al. 2016).

    Branches that stay are scaled by 1 / (1 - rate), so that the expected value is unchanged. Raises ValueError where
    `rate` is no probability below 1.
    """

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"drop path rate: got {rate}, expected 0 or more and below 1")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Return x (N, ...), some samples of it zeroed while training."""
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * (mask / keep)
