"""MobileNetV3-Large: inverted residual blocks found by search, with squeeze-and-excitation and hard-swish.

Paper: Howard et al. 2019, "Searching for MobileNetV3", https://arxiv.org/abs/1905.02244.

Idea: MobileNetV2's block, a network search for widths and kernels, attention over channels in some blocks, and a cheap
piecewise form of the swish activation in the deep ones.

Letters: N batch, C image channels, H W image.

Parameter names are those of torchvision. The maps given out are torchvision's too: after the first block of each
stage, and after the last convolution.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.family import EncoderFamily, EncoderSettings
from segatlas.layers.init import init_weights

NORM_EPS = 1e-3
NORM_MOMENTUM = 0.01
STEM = 16
LAST = 960


class Row(NamedTuple):
    """One block: table 1 of the paper."""

    kernel_size: int
    wide: int
    out_channels: int
    attends: bool
    is_hard_swish: bool
    stride: int


LARGE = (
    Row(3, 16, 16, attends=False, is_hard_swish=False, stride=1),
    Row(3, 64, 24, attends=False, is_hard_swish=False, stride=2),
    Row(3, 72, 24, attends=False, is_hard_swish=False, stride=1),
    Row(5, 72, 40, attends=True, is_hard_swish=False, stride=2),
    Row(5, 120, 40, attends=True, is_hard_swish=False, stride=1),
    Row(5, 120, 40, attends=True, is_hard_swish=False, stride=1),
    Row(3, 240, 80, attends=False, is_hard_swish=True, stride=2),
    Row(3, 200, 80, attends=False, is_hard_swish=True, stride=1),
    Row(3, 184, 80, attends=False, is_hard_swish=True, stride=1),
    Row(3, 184, 80, attends=False, is_hard_swish=True, stride=1),
    Row(3, 480, 112, attends=True, is_hard_swish=True, stride=1),
    Row(3, 672, 112, attends=True, is_hard_swish=True, stride=1),
    Row(5, 672, 160, attends=True, is_hard_swish=True, stride=2),
    Row(5, 960, 160, attends=True, is_hard_swish=True, stride=1),
    Row(5, 960, 160, attends=True, is_hard_swish=True, stride=1),
)
LAST_STAGE = 12
"""The row from which on blocks dilate where the last map is to be at stride 16."""

ENDS = (1, 3, 5, 8, 17)
"""Where in `features` each map ends."""


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None,
) -> nn.Sequential:
    """Return a convolution with batch norm, and an activation or none."""
    padding = kernel_size // 2 * dilation
    layers = [
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=NORM_EPS, momentum=NORM_MOMENTUM),
    ]
    return nn.Sequential(*layers, *([] if activation is None else [activation(inplace=True)]))


class SqueezeExcitation(nn.Module):
    """Weight each channel by what the whole image shows (Hu et al. 2018, https://arxiv.org/abs/1709.01507)."""

    def __init__(self, channels: int):
        super().__init__()
        squeezed = nearest_multiple_of_8(channels // 4)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to the same shape."""
        weights = F.hardsigmoid(self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))))
        return weights * x


class InvertedResidual(nn.Module):
    """Widen (1x1), filter each channel, weight the channels in some blocks, narrow (1x1) without activation."""

    def __init__(self, in_channels: int, row: Row, *, stride: int, dilation: int):
        super().__init__()
        activation = nn.Hardswish if row.is_hard_swish else nn.ReLU
        layers: list[nn.Module] = []
        if row.wide != in_channels:
            layers.append(conv_norm(in_channels, row.wide, activation=activation))
        layers.append(
            conv_norm(
                row.wide,
                row.wide,
                row.kernel_size,
                stride=stride,
                dilation=dilation,
                groups=row.wide,
                activation=activation,
            )
        )
        if row.attends:
            layers.append(SqueezeExcitation(row.wide))
        layers.append(conv_norm(row.wide, row.out_channels, activation=None))
        self.block = nn.Sequential(*layers)
        self.residual = row.stride == 1 and in_channels == row.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h / stride, w / stride)."""
        out: Tensor = self.block(x) + x if self.residual else self.block(x)
        return out


class MobileNetV3(PyramidEncoder):
    """MobileNetV3-Large without its classifier: five maps of 16, 24, 40, 80 and 960 channels.

    Args:
        in_channels: channels of the image.
        output_stride: 16 or 32; with 16 the last stride becomes dilation.
    """

    def __init__(self, *, in_channels: int = 3, output_stride: int = 32):
        super().__init__()
        self.channels = (16, 24, 40, 80, LAST)
        self.strides = (2, 4, 8, 16, output_stride)
        layers: list[nn.Module] = [conv_norm(in_channels, STEM, 3, stride=2, activation=nn.Hardswish)]
        width = STEM
        for index, row in enumerate(LARGE):
            dilates = output_stride == 16 and index >= LAST_STAGE
            stride, dilation = (1, 2) if dilates else (row.stride, 1)
            layers.append(InvertedResidual(width, row, stride=stride, dilation=dilation))
            width = row.out_channels
        layers.append(conv_norm(width, LAST, activation=nn.Hardswish))
        self.features = nn.Sequential(*layers)
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to five maps at strides 2, 4, 8, 16 and 32 (or 16)."""
        maps = []
        for start, end in pairwise((0, *ENDS)):
            x = self.run_stage(self.features[start:end], x)
            maps.append(x)
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Return the layers between the maps."""
        return [list(self.features[start:end]) for start, end in pairwise((0, *ENDS))]


def nearest_multiple_of_8(channels: int) -> int:
    """Return the multiple of 8 nearest to `channels`, at least 8 and not below nine tenths of it."""
    rounded = max(8, (channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def build(spec: EncoderSettings, in_channels: int) -> MobileNetV3:
    """Make a MobileNetV3-Large (the only one here)."""
    return MobileNetV3(in_channels=in_channels, output_stride=spec.output_stride or 32)


FAMILY = EncoderFamily(output_strides=(16, 32), build=build)
