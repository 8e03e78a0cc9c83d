"""STDC: a small encoder made of short-term dense concatenation blocks.

Paper: Fan et al. 2021, "Rethinking BiSeNet For Real-time Semantic Segmentation", https://arxiv.org/abs/2104.13188.

Idea: a block concatenates the outputs of all its convolutions, each narrower than the one before: many scales of
view for the price of one.

Letters: N batch, C image channels, H W image.

`stdc1` (813 MFLOPs at 224) has two blocks at each of strides 8, 16, 32, `stdc2` (1446 MFLOPs) four, five and three.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.family import EncoderFamily, EncoderSettings
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.init import init_weights

CHANNELS = (32, 64, 256, 512, 1024)
BLOCKS = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}
"""Blocks of the last three stages."""


class Downsample(nn.Module):
    """Depthwise 3x3 convolution of stride 2, with batch norm."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to (N, channels, h/2, w/2)."""
        out: Tensor = self.bn(self.conv(x))
        return out


class STDCBlock(nn.Module):
    """Four convolutions of 1/2, 1/4, 1/8, 1/8 of the channels in a row; their outputs concatenated.

    With stride 2 the first output is averaged for the concatenation, and goes on through `downsample`.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int):
        super().__init__()
        half, quarter, eighth = out_channels // 2, out_channels // 4, out_channels // 8
        self.layers = nn.ModuleList(
            [
                ConvBNReLU(in_channels, half, 1),
                ConvBNReLU(half, quarter),
                ConvBNReLU(quarter, eighth),
                ConvBNReLU(eighth, eighth),
            ]
        )
        self.downsample = Downsample(half) if stride == 2 else None
        self.skip = nn.AvgPool2d(kernel_size=3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h / stride, w / stride)."""
        first, *others = self.layers
        x = first(x)
        outputs = [x if self.downsample is None else self.skip(x)]
        if self.downsample is not None:
            x = self.downsample(x)
        for layer in others:
            x = layer(x)
            outputs.append(x)
        return torch.cat(outputs, dim=1)


class STDC(PyramidEncoder):
    """STDC without its classifier: five maps at strides 2, 4, 8, 16, 32."""

    def __init__(self, blocks: tuple[int, int, int], *, in_channels: int = 3):
        super().__init__()
        self.channels, self.strides = CHANNELS, (2, 4, 8, 16, 32)
        self.blocks = nn.ModuleList([strided(in_channels, CHANNELS[0]), strided(CHANNELS[0], CHANNELS[1])])
        for depth, before, width in zip(blocks, CHANNELS[1:], CHANNELS[2:], strict=False):
            stage = [STDCBlock(before, width, stride=2)]
            stage += [STDCBlock(width, width, stride=1) for _ in range(depth - 1)]
            self.blocks.append(nn.Sequential(*stage))
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to five maps."""
        maps = []
        for stage in self.blocks:
            x = self.run_stage(stage, x)
            maps.append(x)
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Return the five stages."""
        return [[stage] for stage in self.blocks]


def strided(in_channels: int, out_channels: int) -> ConvBNReLU:
    """Return a 3x3 convolution of stride 2 with batch norm and ReLU."""
    return ConvBNReLU(in_channels, out_channels, stride=2)


def build(spec: EncoderSettings, in_channels: int) -> STDC:
    """Make `stdc1` or `stdc2`."""
    return STDC(BLOCKS[spec.name], in_channels=in_channels)


FAMILY = EncoderFamily(build=build)
