"""DenseNet: every layer of a block sees the results of all layers before it.

Paper: Huang et al. 2017, "Densely Connected Convolutional Networks", https://arxiv.org/abs/1608.06993.

Idea: concatenation instead of addition. A layer adds a few channels (the growth) to those that it was given, and
nothing is computed twice; a transition between blocks halves channels and size.

Letters: N batch, C image channels, H W image, g growth.

Parameter names are torchvision's. The maps given out are those of segmentation-models-pytorch: after the stem, after
norm and ReLU of each transition, and after the last norm, which has no ReLU. timm's, as `timm/densenet121`, are those
before a transition's norm.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.family import MOST_LEVELS, EncoderFamily, EncoderSettings, PyramidOptions
from segatlas.layers.init import init_weights

BOTTLENECK = 4
"""The 1x1 convolution of a layer has so many times its growth of channels."""


class DenseNetSize(NamedTuple):
    """Channels of the stem, growth, layers in each block: table 1 of the paper."""

    stem: int
    growth: int
    depths: tuple[int, int, int, int]


SIZES: dict[str, DenseNetSize] = {
    "densenet121": DenseNetSize(64, 32, (6, 12, 24, 16)),
    "densenet161": DenseNetSize(96, 48, (6, 12, 36, 24)),
    "densenet169": DenseNetSize(64, 32, (6, 12, 32, 32)),
    "densenet201": DenseNetSize(64, 32, (6, 12, 48, 32)),
}


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1 convolution, norm, ReLU, 3x3 convolution to g channels."""

    def __init__(self, in_channels: int, growth: int):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, BOTTLENECK * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK * growth)
        self.conv2 = nn.Conv2d(BOTTLENECK * growth, growth, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, g, h, w)."""
        x = self.conv1(self.relu(self.norm1(x)))
        out: Tensor = self.conv2(self.relu(self.norm2(x)))
        return out


class DenseBlock(nn.Sequential):
    """Layers `denselayer1` and on; the result of each is put behind the channels that it was given."""

    def __init__(self, in_channels: int, growth: int, depth: int):
        super().__init__()
        for index in range(depth):
            self.add_module(f"denselayer{index + 1}", DenseLayer(in_channels + index * growth, growth))

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, in_channels + depth g, h, w)."""
        for layer in self:
            input = torch.cat([input, layer(input)], dim=1)
        return input


class DenseNet(PyramidEncoder):
    """DenseNet without its classifier.

    Args:
        size: widths and depths.
        in_channels: channels of the image.
        levels: see `PyramidOptions`.
    """

    def __init__(self, size: DenseNetSize, *, in_channels: int = 3, levels: int | None = None):
        super().__init__()
        levels = levels or MOST_LEVELS
        depths = size.depths[: levels - 1]
        stem = {"conv0": nn.Conv2d(in_channels, size.stem, 7, 2, 3, bias=False), "norm0": nn.BatchNorm2d(size.stem)}
        self.features = nn.ModuleDict(stem)
        channels, width = [size.stem], size.stem
        for index, depth in enumerate(depths, start=1):
            self.features[f"denseblock{index}"] = DenseBlock(width, size.growth, depth)
            width += depth * size.growth
            channels.append(width)
            if index == len(size.depths):
                self.features["norm5"] = nn.BatchNorm2d(width)
            else:
                self.features[f"transition{index}"] = transition(width, halves=index < len(depths))
            width //= 2
        self.relu = nn.ReLU(inplace=True)
        self.max_pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.average_pool = nn.AvgPool2d(kernel_size=2, stride=2)
        self.channels = tuple(channels)
        self.strides = tuple(2 ** (level + 1) for level in range(levels))
        init_weights(self)

    def stem(self, x: Tensor) -> Tensor:
        """Map an image (N, C, H, W) to (N, stem, H/2, W/2)."""
        out: Tensor = self.relu(self.features["norm0"](self.features["conv0"](x)))
        return out

    def block(self, index: int, x: Tensor) -> Tensor:
        """Map the map before block `index`, counted from 1, to the map of half its size that ends with the block."""
        features: Any = self.features
        x = self.max_pool(x) if index == 1 else self.average_pool(features[f"transition{index - 1}"]["conv"](x))
        x = features[f"denseblock{index}"](x)
        if f"transition{index}" not in features:
            out: Tensor = features["norm5"](x)
            return out
        return F.relu(features[f"transition{index}"]["norm"](x), inplace=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to maps at strides 2, 4, 8, 16, 32."""
        x = self.run_stage(self.stem, x)
        maps = [x]
        for index in range(1, len(self.channels)):
            x = self.run_stage(partial(self.block, index), x)
            maps.append(x)
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Return the stem, then each block with the convolution before it and the norm after it."""
        features: Any = self.features
        stages: list[list[nn.Module]] = [[features["conv0"], features["norm0"]]]
        for index in range(1, len(self.channels)):
            before = [features[f"transition{index - 1}"]["conv"]] if index > 1 else []
            between = f"transition{index}" in features
            norm = features[f"transition{index}"]["norm"] if between else features["norm5"]
            stages.append([*before, features[f"denseblock{index}"], norm])
        return stages


def transition(channels: int, *, halves: bool) -> nn.ModuleDict:
    """Return what stands between two blocks: the norm of the map before it, the convolution that halves channels."""
    parts: dict[str, nn.Module] = {"norm": nn.BatchNorm2d(channels)}
    if halves:
        parts["conv"] = nn.Conv2d(channels, channels // 2, 1, bias=False)
    return nn.ModuleDict(parts)


def build(spec: EncoderSettings, in_channels: int) -> DenseNet:
    """Make densenet121, densenet161, densenet169 or densenet201."""
    options: PyramidOptions = spec.options
    return DenseNet(SIZES[spec.name], in_channels=in_channels, levels=options.levels)


FAMILY = EncoderFamily(options=PyramidOptions, build=build)
