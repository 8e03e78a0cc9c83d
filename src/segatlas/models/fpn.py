"""FPN: the feature pyramid as a network for class maps, as segmentation-models-pytorch builds it.

Papers: Lin et al. 2017, "Feature Pyramid Networks for Object Detection", https://arxiv.org/abs/1612.03144; Kirillov et
al. 2017, "A Unified Architecture for Instance and Semantic Segmentation",
http://presentations.cocodataset.org/COCO17-Stuff-FAIR.pdf.

Idea: a pyramid gives every level of the encoder the meaning of the coarser ones. Each of its four levels is brought to
the finest one's size by convolutions and doublings, and their sum (or all of them concatenated) is classified.

Letters: N batch, C image channels, K classes, H W image (padded to the canvas), h w finest level, P pyramid width,
D decoder width.

It is not `semantic_fpn`, which is MMSegmentation's: here no 3x3 convolution stands on the pyramid's levels themselves,
a group norm follows each convolution of a level's way, and doublings hold the corners.

How ours differs: nothing in the numbers. The levels are the encoder's last four maps; of an encoder with three maps the
image itself is the finest, as the library has it at depth 3.

Any image size: padded right and bottom with zeros to a multiple of the encoder's last stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import EncoderSpec
from segatlas.errors import UsageError
from segatlas.layers.inner_upsampling import upsample_inside
from segatlas.models.architecture import Architecture
from segatlas.models.dense import DenseNetwork, HeadConfig, PresenceConfig
from segatlas.structures import Resample, SemanticLogits

LEVELS = 4
GROUPS = 32


@dataclass(frozen=True, kw_only=True)
class FPNConfig(HeadConfig, PresenceConfig):
    """Settings of an FPN, besides those of `HeadConfig` and `PresenceConfig`.

    channels: decoder width, D, a multiple of `groups`.
    align_corners: how levels and logits are upsampled.
    pyramid_channels: pyramid width, P.
    groups: of the group norms.
    merge: how the levels meet, "add" or "cat".
    inner_upsampling: the network upsamples its logits by that factor itself, whatever the stride of its finest level;
        None = the last upsampling is to the image's size.
    """

    encoder: EncoderSpec = EncoderSpec(name="resnet34")
    dropout: float = 0.2
    channels: int = 128
    align_corners: bool = True
    pyramid_channels: int = 256
    groups: int = GROUPS
    merge: Literal["add", "cat"] = "add"
    inner_upsampling: int | None = None


class ConvGNReLU(nn.Module):
    """A 3x3 convolution without bias, group norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, groups: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(groups, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        return F.relu(self.norm(self.conv(x)))


class FPNNetwork(DenseNetwork):
    """Encoder, feature pyramid, merged levels, 1x1 classifier: logits at the stride of the finest level."""

    def __init__(self, config: FPNConfig):
        super().__init__(config)
        self.size_divisibility = max(self.size_divisibility, self.encoder.strides[-1])
        strides, channels = self.encoder.strides[-LEVELS:], self.encoder.channels[-LEVELS:]
        if strides == (2, 4, 8):
            strides, channels = (1, *strides), (config.in_channels, *channels)
        if len(strides) < LEVELS or any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
            raise UsageError(
                f"FPN needs an encoder with {LEVELS} maps that double in stride from each to the next, or maps of "
                f"strides 2, 4, 8 and no others; {config.encoder} has {self.encoder.strides}"
            )
        self.takes_image = strides[0] == 1
        self.stride, self.cat, self.inner = strides[0], config.merge == "cat", config.inner_upsampling
        self.lateral = nn.ModuleList(nn.Conv2d(width, config.pyramid_channels, 1) for width in channels)
        self.levels = nn.ModuleList(
            nn.ModuleList(
                ConvGNReLU(config.channels if step else config.pyramid_channels, config.channels, config.groups)
                for step in range(max(doublings, 1))
            )
            for doublings in range(LEVELS)
        )
        if self.inner is not None:
            self.resample = Resample(align_corners=False)
        width = config.channels * (LEVELS if self.cat else 1)
        self.add_classifier(config, width, self.lateral, self.levels)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the last four maps, finest first, to the map before the classifier: (N, D or 4 D, h, w)."""
        maps = [layer(x) for layer, x in zip(self.lateral, features[-LEVELS:], strict=True)]  # (N, P, h_i, w_i)
        for i in range(LEVELS - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + F.interpolate(maps[i], scale_factor=2.0, mode="nearest")
        return self.merge([self.refine(level, x) for level, x in enumerate(maps)])

    def refine(self, level: int, x: Tensor) -> Tensor:
        """Bring a level (N, P, h_i, w_i) to the size of the finest: (N, D, h, w)."""
        for conv in self.levels[level].children():
            x = conv(x)
            if level:
                x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=self.align_corners)
        return x

    def merge(self, maps: list[Tensor]) -> Tensor:
        """Add maps (N, D, h, w), or concatenate them, the coarsest level's first."""
        if self.cat:
            return torch.cat(maps[::-1], dim=1)
        first, second, third, last = maps
        return first + second + third + last

    def classify(self, x: Tensor) -> Tensor:
        """Map the decoder's map to logits (N, K, h, w), upsampled inside where the config asks for it."""
        logits = super().classify(x)
        return logits if self.inner is None else upsample_inside(logits, self.inner, self.stride)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Map the padded image to the encoder's maps, with the image itself as the finest where a level is missing."""
        features = super().encode(x)
        return [x, *features] if self.takes_image else features

    def maps_of_encoder(self, features: list[Tensor]) -> list[Tensor]:
        """Return the encoder's own maps, finest first."""
        return features[-len(self.encoder.channels) :]


ARCHITECTURE = Architecture(
    name="fpn",
    title="FPN",
    paper="https://arxiv.org/abs/1612.03144",
    tasks=("semantic",),
    output=SemanticLogits,
    config=FPNConfig,
    build=FPNNetwork,
    variants={
        "fpn_r34": {"encoder": "resnet34"},
        "fpn_r50": {"encoder": "resnet50"},
    },
    tiny={"encoder": "resnet18_w8", "channels": 8, "pyramid_channels": 8, "groups": 4, "aux": True},
)
