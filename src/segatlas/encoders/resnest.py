"""ResNeSt: a ResNet whose 3x3 convolution makes two maps and lets the image choose between them, channel by channel.

Paper: Zhang et al. 2020, "ResNeSt: Split-Attention Networks", https://arxiv.org/abs/2004.08955.

Idea: attention over feature groups inside each block: cheap, and every later layer profits.

Letters: N batch, C image channels, H W image, R splits (the radix, 2).

The rest is a ResNet of form d: deep stem, averaging shortcuts. Where a block strides it averages, before its last
convolution. Parameter names are timm's and MMSegmentation's. Where layers dilate in place of striding, blocks do not
average (MMSegmentation's form; timm's averages there too).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.family import EncoderFamily, EncoderSettings
from segatlas.encoders.resnet import DILATIONS, ResNet
from segatlas.layers.norm import BatchNorm2d

RADIX = 2
REDUCTION = 4
DEPTHS = {
    "resnest50": (3, 4, 6, 3),
    "resnest101": (3, 4, 23, 3),
    "resnest152": (3, 8, 36, 3),
    "resnest200": (3, 24, 36, 3),
}
STEM_WIDTHS = {"resnest50": 64}
"""Channels after the stem, where they are not 128."""


class SplitAttention(nn.Module):
    """A grouped 3x3 convolution to R maps, and their sum weighted by a softmax over them, one weight a channel.

    A stack of these can magnify rounding ten-thousandfold (it does with random weights), so in fp32 the order of
    operations is kept as published: `keeps_order` is what `segatlas.inference.fast_form` looks at.
    """

    keeps_order = True

    def __init__(self, channels: int, *, dilation: int):
        super().__init__()
        middle = max(channels * RADIX // REDUCTION, 32)
        wide = channels * RADIX
        self.conv = nn.Conv2d(channels, wide, 3, padding=dilation, dilation=dilation, groups=RADIX, bias=False)
        self.bn0 = nn.BatchNorm2d(wide)
        self.fc1 = nn.Conv2d(channels, middle, 1)
        self.bn1 = BatchNorm2d(middle)
        self.fc2 = nn.Conv2d(middle, wide, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to the same shape."""
        x = self.relu(self.bn0(self.conv(x)))
        splits = x.unflatten(1, (RADIX, -1))  # (N, R, channels, h, w)
        pooled = F.adaptive_avg_pool2d(splits.sum(dim=1), 1)
        scores = self.fc2(self.relu(self.bn1(self.fc1(pooled))))
        weights = scores.unflatten(1, (RADIX, -1)).softmax(dim=1)
        return (weights * splits).sum(dim=1)


class SplitBottleneck(nn.Module):
    """1x1 to fewer channels, split attention, averaging where it strides, 1x1 to four times as many, a shortcut."""

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, *, stride: int, dilations: tuple[int, int], downsample: nn.Module | None
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = SplitAttention(width, dilation=dilations[0])
        self.average = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else None
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, 4 width, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.conv2(self.relu(self.bn1(self.conv1(x))))
        if self.average is not None:
            x = self.average(x)
        out: Tensor = self.relu(self.bn3(self.conv3(x)) + shortcut)
        return out


@dataclass(frozen=True, kw_only=True)
class ResNeStOptions:
    """Options of a ResNeSt.

    dilations: of each layer; None = doubled wherever a layer dilates instead of striding, else 1.
    multi_grid: dilation of each block of the last layer; None = the same for all.
    contract_dilation: the first block of a layer that dilates has half its dilation: that of the layer before.
    stem_width: channels of the stem; None = the published ones.
    """

    dilations: tuple[int, int, int, int] | None = None
    multi_grid: tuple[int, ...] | None = None
    contract_dilation: bool = True
    stem_width: int | None = None


def build(spec: EncoderSettings, in_channels: int) -> ResNet:
    """Make resnest50, resnest101, resnest152 or resnest200."""
    options: ResNeStOptions = spec.options
    return ResNet(
        SplitBottleneck,
        DEPTHS[spec.name],
        in_channels=in_channels,
        deep_stem=True,
        average_shortcut=True,
        stem_width=options.stem_width or STEM_WIDTHS.get(spec.name, 128),
        output_stride=spec.output_stride or 32,
        dilations=options.dilations,
        multi_grid=options.multi_grid,
        contract_dilation=options.contract_dilation,
    )


FAMILY = EncoderFamily(options=ResNeStOptions, output_strides=tuple(sorted(DILATIONS)), build=build)
