"""EfficientNet: inverted residual blocks, scaled in width, depth and resolution together.

Paper: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
https://arxiv.org/abs/1905.11946.

Idea: a network found by search (B0), and a rule by which its widths, its depths and the size of its images grow
together (B1 to B7).

Letters: N batch, C image channels, H W image, k kernel.

These are the networks of segmentation-models-pytorch, hence the hyphen in `efficientnet-b0`; timm's, without it, pad
otherwise. A convolution that strides pads as TensorFlow does for an image of the size that the network was published
for: where its map has an even side there, one pixel more behind than before; the size of the image at hand does not
matter. A map ends with the last block of its stride, but in B0 with the first one of 112 channels. Parameter names of
stem and blocks are timm's, the blocks being counted through.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.family import MOST_LEVELS, EncoderFamily, EncoderSettings, PyramidOptions
from segatlas.layers.drop_path import DropPath
from segatlas.layers.init import init_weights

NORM_EPS = 1e-3
NORM_MOMENTUM = 0.01
STEM = 32
SQUEEZE = 4
"""A block's input has so many times the channels of its squeezed vector."""


class Group(NamedTuple):
    """Blocks of one width: table 1 of the paper."""

    widening: int
    kernel_size: int
    stride: int
    out_channels: int
    depth: int


GROUPS = (
    Group(widening=1, kernel_size=3, stride=1, out_channels=16, depth=1),
    Group(widening=6, kernel_size=3, stride=2, out_channels=24, depth=2),
    Group(widening=6, kernel_size=5, stride=2, out_channels=40, depth=2),
    Group(widening=6, kernel_size=3, stride=2, out_channels=80, depth=3),
    Group(widening=6, kernel_size=5, stride=1, out_channels=112, depth=3),
    Group(widening=6, kernel_size=5, stride=2, out_channels=192, depth=4),
    Group(widening=6, kernel_size=3, stride=1, out_channels=320, depth=1),
)
LAST_GROUPS = (1, 2, 4, 6)
"""The groups that a map ends with, the map of the stem coming first."""


class Scaling(NamedTuple):
    """How a size grows: factors of width and depth, and the side of the images that it was published for."""

    width: float
    depth: float
    side: int


SIZES: dict[str, Scaling] = {
    "efficientnet-b0": Scaling(1.0, 1.0, 224),
    "efficientnet-b1": Scaling(1.0, 1.1, 240),
    "efficientnet-b2": Scaling(1.1, 1.2, 260),
    "efficientnet-b3": Scaling(1.2, 1.4, 300),
    "efficientnet-b4": Scaling(1.4, 1.8, 380),
    "efficientnet-b5": Scaling(1.6, 2.2, 456),
    "efficientnet-b6": Scaling(1.8, 2.6, 528),
    "efficientnet-b7": Scaling(2.0, 3.1, 600),
}


class Row(NamedTuple):
    """One block. side: of its map in an image of the published size. level: index of the map that it belongs to."""

    in_channels: int
    group: Group
    stride: int
    side: int
    level: int


def rows(name: str) -> list[Row]:
    """Return the blocks of a network, widths and depths scaled."""
    scaling = SIZES[name]
    side, in_channels, level = halved(scaling.side), scaled_width(STEM, scaling.width), 1
    found = []
    for index, group in enumerate(GROUPS):
        group = group._replace(
            out_channels=scaled_width(group.out_channels, scaling.width), depth=math.ceil(scaling.depth * group.depth)
        )
        for block in range(group.depth):
            stride = group.stride if block == 0 else 1
            found.append(Row(in_channels, group, stride, side, level))
            side = halved(side) if stride == 2 else side
            in_channels = group.out_channels
            ends = block == 0 if name == "efficientnet-b0" and index == 4 else block == group.depth - 1
            if index in LAST_GROUPS and ends:
                level += 1
    return found


def scaled_width(channels: int, factor: float) -> int:
    """Return channels times factor as a multiple of 8, at most a tenth below it."""
    scaled = channels * factor
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def halved(side: int) -> int:
    """Return the side of a map behind a convolution that strides."""
    return math.ceil(side / 2)


def spatial_convolution(
    in_channels: int, out_channels: int, *, kernel_size: int, stride: int, side: int, groups: int = 1, dilation: int = 1
) -> tuple[nn.Module, nn.Conv2d]:
    """Return what pads a map and the convolution after it; `side` is that of the map for the published image size."""
    if stride == 2 and side % 2 == 0:
        before = (kernel_size - 2) // 2
        after = kernel_size - 2 - before
        pad: nn.Module = nn.ZeroPad2d((before, after, before, after))
        padding = 0
    else:
        pad, padding = nn.Identity(), kernel_size // 2 * dilation
    return pad, nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups=groups, bias=False)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return the norm of all layers."""
    return nn.BatchNorm2d(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)


class SqueezeExcite(nn.Module):
    """Attention over channels: the mean over the map, two 1x1 convolutions, a factor for each channel."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, squeezed, 1)
        self.conv_expand = nn.Conv2d(squeezed, channels, 1)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to the same shape."""
        squeezed = self.act(self.conv_reduce(x.mean(dim=(2, 3), keepdim=True)))
        out: Tensor = x * torch.sigmoid(self.conv_expand(squeezed))
        return out


class InvertedBlock(nn.Module):
    """Widen (1x1), filter each channel (k x k), weigh channels, narrow (1x1); add the input where shapes allow."""

    def __init__(self, row: Row, *, dilation: int, drop_path: float):
        super().__init__()
        group, wide = row.group, row.in_channels * row.group.widening
        stride = row.stride if dilation == 1 else 1
        self.widens = group.widening > 1
        if self.widens:
            self.conv_pw = nn.Conv2d(row.in_channels, wide, 1, bias=False)
            self.bn1 = batch_norm(wide)
        self.pad, self.conv_dw = spatial_convolution(
            wide, wide, kernel_size=group.kernel_size, stride=stride, side=row.side, groups=wide, dilation=dilation
        )
        self.bn2 = batch_norm(wide)
        self.se = SqueezeExcite(wide, max(1, row.in_channels // SQUEEZE))
        self.conv_pwl = nn.Conv2d(wide, group.out_channels, 1, bias=False)
        self.bn3 = batch_norm(group.out_channels)
        self.act = nn.SiLU(inplace=True)
        self.residual = row.stride == 1 and row.in_channels == group.out_channels
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h / stride, w / stride)."""
        shortcut = x
        if self.widens:
            x = self.act(self.bn1(self.conv_pw(x)))
        x = self.se(self.act(self.bn2(self.conv_dw(self.pad(x)))))
        x = self.bn3(self.conv_pwl(x))
        return shortcut + self.drop_path(x) if self.residual else x


class EfficientNet(PyramidEncoder):
    """EfficientNet without its last convolution and classifier: maps of the stem and of four parts of its blocks.

    Args:
        name: a key of `SIZES`.
        in_channels: channels of the image.
        output_stride: 8, 16 or 32; below 32 the blocks of the last map (16) or the last two (8) dilate, not stride.
        drop_path, levels: see `EfficientNetOptions`.
    """

    def __init__(
        self,
        name: str,
        *,
        in_channels: int = 3,
        output_stride: int = 32,
        drop_path: float = 0.2,
        levels: int | None = None,
    ):
        super().__init__()
        levels = levels or MOST_LEVELS
        table = rows(name)
        stem = table[0].in_channels
        self.pad, self.conv_stem = spatial_convolution(
            in_channels, stem, kernel_size=3, stride=2, side=SIZES[name].side
        )
        self.bn1 = batch_norm(stem)
        self.act = nn.SiLU(inplace=True)
        blocks = [
            InvertedBlock(
                row, dilation=max(2 ** (row.level + 1) // output_stride, 1), drop_path=drop_path * i / len(table)
            )
            for i, row in enumerate(table)
            if row.level < levels
        ]
        self.blocks = nn.Sequential(*blocks)
        self.ends = tuple(sum(row.level <= level for row in table) for level in range(1, levels))
        self.channels = (stem, *(table[end - 1].group.out_channels for end in self.ends))
        self.strides = tuple(min(2 ** (level + 1), output_stride) for level in range(levels))
        init_weights(self)

    def stem(self, x: Tensor) -> Tensor:
        """Map an image (N, C, H, W) to (N, stem, H/2, W/2)."""
        out: Tensor = self.act(self.bn1(self.conv_stem(self.pad(x))))
        return out

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to maps at strides 2, 4, 8, 16, 32 (or less, see `strides`)."""
        x = self.run_stage(self.stem, x)
        maps = [x]
        for start, end in pairwise((0, *self.ends)):
            x = self.run_stage(self.blocks[start:end], x)
            maps.append(x)
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Return the stem and the blocks of each map."""
        return [
            [self.conv_stem, self.bn1],
            *(list(self.blocks[start:end]) for start, end in pairwise((0, *self.ends))),
        ]


@dataclass(frozen=True, kw_only=True)
class EfficientNetOptions(PyramidOptions):
    """Options of an EfficientNet, besides those of `PyramidOptions`.

    drop_path: stochastic depth while training; it rises from 0 at the first block nearly to this at the last.
    """

    drop_path: float = 0.2


def build(spec: EncoderSettings, in_channels: int) -> EfficientNet:
    """Make an EfficientNet by name, efficientnet-b0 to efficientnet-b7."""
    options: EfficientNetOptions = spec.options
    return EfficientNet(
        spec.name,
        in_channels=in_channels,
        output_stride=spec.output_stride or 32,
        drop_path=options.drop_path,
        levels=options.levels,
    )


FAMILY = EncoderFamily(options=EfficientNetOptions, output_strides=(8, 16, 32), build=build)
