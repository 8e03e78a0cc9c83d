"""Convolution, batch norm, ReLU: the block that most decoders are made of, and forms of it."""

from __future__ import annotations

from torch import Tensor, nn

from segatlas.layers.norm import BatchNorm2d


class ConvGroupNormReLU(nn.Module):
    """A convolution that keeps the size, by default without bias, then group norm and ReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, *, groups: int = 32, bias: bool = False
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self.norm = nn.GroupNorm(groups, out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        out: Tensor = self.relu(self.norm(self.conv(x)))
        return out


class ConvGroupNorm(nn.Module):
    """A convolution that keeps the size, by default without bias, then group norm."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 1, *, groups: int = 32, bias: bool = False
    ):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self.norm = nn.GroupNorm(groups, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        out: Tensor = self.norm(self.conv(x))
        return out


class ConvBNReLU(nn.Module):
    """A convolution without bias that keeps the size ("same" padding) but for its stride, then batch norm and ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
    ):
        super().__init__()
        padding = kernel_size // 2 * dilation
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)
        self.bn = BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h / stride, w / stride)."""
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


class OpenConv(nn.Module):
    """A convolution without bias that keeps the size ("same" padding) but for its stride, then batch norm."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        groups: int = 1,
    ):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
        )
        self.bn = BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h / stride, w / stride)."""
        out: Tensor = self.bn(self.conv(x))
        return out


class NormReLUConv(nn.Module):
    """Batch norm, ReLU, then a convolution without bias that keeps the size; the map that comes in stays as it is."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, *, groups: int = 1):
        super().__init__()
        self.bn = BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=kernel_size // 2, groups=groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        out: Tensor = self.conv(self.relu(self.bn(x)))
        return out
