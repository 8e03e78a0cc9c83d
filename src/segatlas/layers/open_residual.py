"""Residual blocks of two-branch networks: a stage of them ends without ReLU, so that branches are summed before it.

Paper: Hong et al. 2021, "Deep Dual-resolution Networks for Real-time and Accurate Semantic Segmentation of Road
Scenes", https://arxiv.org/abs/2101.06085, section III-B.
"""

from __future__ import annotations

from torch import Tensor, nn

from segatlas.layers.conv import ConvBNReLU, NormReLUConv, OpenConv
from segatlas.layers.norm import BatchNorm2d


class OpenBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; ReLU after the sum only where `closed`."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, *, stride: int = 1, closed: bool = False):
        super().__init__()
        self.conv1 = ConvBNReLU(in_channels, width, stride=stride)
        self.conv2 = OpenConv(width, width)
        changes = stride > 1 or in_channels != width
        self.downsample = OpenConv(in_channels, width, 1, stride=stride) if changes else None
        self.relu = nn.ReLU(inplace=True) if closed else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, width, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.conv2(self.conv1(x)) + shortcut
        return out if self.relu is None else self.relu(out)


class OpenBottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution to twice the width, and a shortcut; no ReLU after the sum."""

    expansion = 2

    def __init__(self, in_channels: int, width: int, *, stride: int = 1):
        super().__init__()
        self.conv1 = ConvBNReLU(in_channels, width, 1)
        self.conv2 = ConvBNReLU(width, width, stride=stride)
        self.conv3 = OpenConv(width, width * self.expansion, 1)
        changes = stride > 1 or in_channels != width * self.expansion
        self.downsample = OpenConv(in_channels, width * self.expansion, 1, stride=stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, 2 width, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.conv3(self.conv2(self.conv1(x))) + shortcut
        return out


class OpenHead(nn.Module):
    """What comes before a classifier: batch norm, ReLU, a 3x3 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.conv = NormReLUConv(in_channels, channels)
        self.bn = BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, channels, h, w)."""
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


def open_blocks(in_channels: int, width: int, depth: int, *, stride: int = 1) -> nn.Sequential:
    """Return `depth` blocks in a row, the first with the stride; all but the last end with ReLU."""
    widths = [in_channels, *[width] * (depth - 1)]
    return nn.Sequential(
        *(
            OpenBlock(given, width, stride=stride if index == 0 else 1, closed=index < depth - 1)
            for index, given in enumerate(widths)
        )
    )


def open_bottlenecks(in_channels: int, width: int, depth: int, *, stride: int = 1) -> nn.Sequential:
    """Return `depth` bottlenecks in a row, the first with the stride; none ends with ReLU."""
    blocks = [OpenBottleneck(in_channels, width, stride=stride)]
    blocks += [OpenBottleneck(width * OpenBottleneck.expansion, width) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)
