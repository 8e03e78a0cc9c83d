"""A small network that finds objects by their centres: a teaching example for instance segmentation.

Papers: Zhou et al. 2019, "Objects as Points", https://arxiv.org/abs/1904.07850 (a heat map with a peak at the centre of
every object); Cheng et al. 2020, "Panoptic-DeepLab", https://arxiv.org/abs/1911.10194 (pixels point at their centre).

Idea: three maps are enough to tell objects apart. One says where centres are, one says which pixels belong to objects
of which class, and one gives each pixel the way to the centre of its own object. Pixels that point at the same centre
are one object; nothing is proposed, matched or suppressed pair by pair.

Letters: N batch, C image channels, K classes, H W image, w width of the first level.

How ours differs: the network is a narrow U-shaped one trained from random weights on small images, to be read and to be
trained in minutes; both papers use large encoders. Maps are given at stride 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.models.needs import Needs
from segatlas.structures import CentersAndOffsets, Inputs, image_of

RARE = 0.01
"""What the heat map answers before training, as a probability: centres are rare, and the loss begins small."""


@dataclass(frozen=True, kw_only=True)
class CenterConfig:
    """Settings of the network.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    width: channels at stride 2, w; each coarser level has twice as many, four times w at most.
    levels: how often the image is halved.
    dropout: fraction of channels dropped before the three maps while training.
    """

    num_classes: int
    in_channels: int = 3
    width: int = 32
    levels: int = 5
    dropout: float = 0.0

    def __post_init__(self) -> None:
        require_at_least(self, num_classes=1, in_channels=1, width=1, levels=1, dropout=0)


class Residual(nn.Module):
    """Two 3x3 convolutions added to their input, which pooling and a 1x1 convolution bring to their form."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1):
        super().__init__()
        self.conv1 = ConvBNReLU(in_channels, out_channels, stride=stride)
        self.conv2 = ConvBNReLU(out_channels, out_channels)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.skip = nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h / stride, w / stride)."""
        out: Tensor = self.skip(self.pool(x)) + self.conv2(self.conv1(x))
        return out


class HalvingEncoder(PyramidEncoder):
    """One residual block a level, each at half the size of the one before."""

    def __init__(self, in_channels: int, width: int, levels: int):
        super().__init__()
        self.strides = tuple(2 ** (level + 1) for level in range(levels))
        self.channels = tuple(width * min(2**level, 4) for level in range(levels))
        self.size_divisibility = self.strides[-1]
        inputs = (in_channels, *self.channels[:-1])
        self.blocks = nn.ModuleList(Residual(a, b, stride=2) for a, b in zip(inputs, self.channels, strict=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to maps at strides 2, 4, 8, ..."""
        features: list[Tensor] = []
        for block in self.blocks:
            x = self.run_stage(block, x)
            features.append(x)
        return features

    def stages(self) -> list[list[nn.Module]]:
        """Return the levels."""
        return [[block] for block in self.blocks]


class Head(nn.Module):
    """A 3x3 convolution with batch norm and ReLU, then the map."""

    def __init__(self, channels: int, out_channels: int):
        super().__init__()
        self.first = ConvBNReLU(channels, channels)
        self.last = nn.Conv2d(channels, out_channels, kernel_size=1)

    def begin_with(self, value: float) -> None:
        """Answer `value` everywhere until training changes it."""
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.constant_(self.last.bias, value)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to (N, out_channels, h, w)."""
        out: Tensor = self.last(self.first(x))
        return out


class CenterNet(nn.Module):
    """Halve the image a few times, double the maps again with skips, give three maps at stride 2."""

    def __init__(self, config: CenterConfig):
        super().__init__()
        self.encoder = HalvingEncoder(config.in_channels, config.width, config.levels)
        deepest_first = self.encoder.channels[::-1]
        self.decoder = nn.ModuleList(Residual(a + b, b) for a, b in pairwise(deepest_first))
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(config.width, config.num_classes, kernel_size=1)  # foreground
        self.centers = Head(config.width, 1)
        self.offsets = Head(config.width, 2)
        init_weights(self)
        self.centers.begin_with(math.log(RARE / (1 - RARE)))
        self.offsets.begin_with(0.0)  # every pixel is its own centre

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the heads: (N, w, H/2, W/2)."""
        x = features[-1]
        for block, skip in zip(self.decoder, features[-2::-1], strict=True):
            up = F.interpolate(x, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([up, skip], dim=1))
        return x

    def forward(self, inputs: Tensor | Inputs) -> CentersAndOffsets:
        """Map a normalised image (N, C, H, W) to the three maps, 1 + 2 + K channels, at stride 2."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        canvas = (x.shape[-2], x.shape[-1])
        x = self.dropout(self.decode(self.encoder(x)))  # (N, w, H/2, W/2)
        reach = float(self.encoder.strides[-1])  # offsets are learned in steps of the coarsest level
        return CentersAndOffsets(
            centers=self.centers(x),
            offsets=reach * self.offsets(x),
            foreground=self.classifier(x),
            canvas=canvas,
        )


ARCHITECTURE = Architecture(
    name="center",
    title="Center network",
    paper="https://arxiv.org/abs/1904.07850",
    tasks=("instance",),
    output=CentersAndOffsets,
    config=CenterConfig,
    build=CenterNet,
    needs=Needs(targets=("InstancesTarget",), losses=("centers_offsets",)),
    tiny={"width": 4, "levels": 3},
)
