"""scSE: squeeze and excitation over space and over channels.

Paper: Roy et al. 2018, "Recalibrating Fully Convolutional Networks with Spatial and Channel Squeeze & Excitation
Blocks", https://arxiv.org/abs/1808.08127.
"""

from __future__ import annotations

from torch import Tensor, nn


class ChannelGate(nn.Sequential):
    """A number between 0 and 1 for each channel of a map, from the map's average.

    Args:
        channels: of the map.
        reduction: the gate's hidden layer has so many times fewer, one at least.
    """

    def __init__(self, channels: int, reduction: int = 16):
        middle = max(channels // reduction, 1)
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, middle, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(middle, channels, 1),
            nn.Sigmoid(),
        )


class SCSE(nn.Module):
    """A map weighted by channel, plus the same map weighted by pixel.

    Args:
        channels: of the map.
        reduction: see `ChannelGate`.
    """

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.by_channel = ChannelGate(channels, reduction)
        self.by_pixel = nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to the same shape."""
        return x * (self.by_channel(x) + self.by_pixel(x))
