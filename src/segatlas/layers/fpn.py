"""Feature pyramid: coarse maps with meaning flow down into fine maps with detail; and the head that sums the levels."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.conv import ConvBNReLU, ConvGroupNormReLU
from segatlas.layers.norm import BatchNorm2d


class FPN(nn.Module):
    """Feature pyramid network (Lin et al. 2017, https://arxiv.org/abs/1612.03144).

    Each map is projected to the same width, and the next coarser result is added to it, upsampled to its size by
    nearest neighbour. A 3x3 convolution follows on every level. No ReLU.

    Args:
        in_channels: channels of each map, finest first.
        channels: width of all results.
        norm: batch norm in place of the biases of all convolutions.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, *, norm: bool = False):
        super().__init__()
        self.lateral = nn.ModuleList(_convolution(width, channels, 1, norm=norm) for width in in_channels)
        self.output = nn.ModuleList(_convolution(channels, channels, 3, norm=norm) for _ in in_channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Map maps (N, in_channels[i], h_i, w_i), finest first, to (N, channels, h_i, w_i)."""
        maps = [layer(x) for layer, x in zip(self.lateral, features, strict=True)]
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + F.interpolate(maps[i], size=maps[i - 1].shape[-2:], mode="nearest")
        return [layer(x) for layer, x in zip(self.output, maps, strict=True)]


def _convolution(in_channels: int, channels: int, kernel_size: int, *, norm: bool) -> nn.Module:
    conv = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=not norm)
    return nn.Sequential(conv, BatchNorm2d(channels)) if norm else conv


class FPNHead(nn.Module):
    """Brings every level to the finest one's size, step by step, and sums (Kirillov et al. 2019, section 3).

    A level is upsampled by two after each of its 3x3 convolutions; it has as many as steps are needed, at least one.

    Args:
        in_channels: of every level, or of each, finest first.
        channels: of the result.
        strides: of each level, finest first; a power of two apart.
        align_corners: how maps are upsampled.
        groups: group norm of so many groups in place of batch norm; 0 = batch norm.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        channels: int,
        *,
        strides: Sequence[int],
        align_corners: bool,
        groups: int = 0,
    ):
        super().__init__()

        def block(width: int) -> nn.Module:
            return ConvGroupNormReLU(width, channels, groups=groups) if groups else ConvBNReLU(width, channels)

        self.align_corners = align_corners
        widths = [in_channels] * len(strides) if isinstance(in_channels, int) else in_channels
        self.steps = [(stride // strides[0]).bit_length() - 1 for stride in strides]
        self.levels = nn.ModuleList(
            nn.ModuleList(block(channels if k else width) for k in range(max(steps, 1)))
            for steps, width in zip(self.steps, widths, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map levels (N, in_channels[i], h_i, w_i), finest first, to (N, channels, h_0, w_0)."""
        (first,) = self.levels[0].children()
        total: Tensor = first(maps[0])
        for convs, steps, x in zip(self.levels[1:], self.steps[1:], maps[1:], strict=True):
            for conv in convs.children():
                x = conv(x)
                if steps:
                    x = self._upsample(x, (2 * x.shape[-2], 2 * x.shape[-1]))
            total = total + self._upsample(x, (total.shape[-2], total.shape[-1]))
        return total

    def _upsample(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=self.align_corners)
