"""MA-Net: a U-Net with attention between all positions of the deepest map, and between its two sides at every step.

Paper: Fan et al. 2020, "MA-Net: A Multi-Scale Attention Network for Liver and Tumor Segmentation",
https://doi.org/10.1109/ACCESS.2020.3025372.

Idea: the deepest map is small enough for every position to look at every other. On the way up, channels of the coarse
map are weighted by what its average and that of the encoder's map of the same size say together.

Letters: N batch, C image channels, K classes, H W image (padded to the canvas), h w any map, P positions of the deepest
map (h w), A attention width.

How ours differs: the form is that of segmentation-models-pytorch (nearest-neighbour doubling, encoders of any kind, a
3x3 classifier), with two facts of its position attention that its weights are trained with: one softmax runs over all
pairs of positions and not over each row, and the result (P, E) is read as (E, h, w) in memory order. Weighting comes
before the doubling that it commutes with.

Any image size: padded right and bottom with zeros to a multiple of the encoder's last stride.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.spec import EncoderSpec
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.doubling import doubling_steps
from segatlas.layers.scse import ChannelGate
from segatlas.models.architecture import Architecture
from segatlas.models.dense import DenseConfig, DenseNetwork, PresenceConfig
from segatlas.structures import SemanticLogits


@dataclass(frozen=True, kw_only=True)
class MANetConfig(DenseConfig, PresenceConfig):
    """Settings of an MA-Net, besides those of `DenseConfig` and `PresenceConfig`.

    decoder_channels: channels after each step, deepest first. Fewer entries than the encoder has doublings stop early
        and leave the logits at a coarser stride.
    attention_channels: of the keys and queries of the position attention, A.
    reduction: the hidden layers of gates have so many times fewer channels than what they weight.
    """

    encoder: EncoderSpec = EncoderSpec(name="resnet34")
    dropout: float = 0.0
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    attention_channels: int = 64
    reduction: int = 16


class PositionAttention(nn.Module):
    """Attention between all positions of a map, added to it; a 3x3 convolution follows."""

    def __init__(self, channels: int, attention_channels: int):
        super().__init__()
        self.query = nn.Conv2d(channels, attention_channels, 1)
        self.key = nn.Conv2d(channels, attention_channels, 1)
        self.value = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, E, h, w) to the same shape."""
        query = self.query(x).flatten(2).transpose(1, 2)  # (N, P, A)
        key = self.key(x).flatten(2)  # (N, A, P)
        value = self.value(x).flatten(2).transpose(1, 2)  # (N, P, E)
        scores = query @ key  # (N, P, P)
        weights = scores.flatten(1).softmax(dim=1).view_as(scores)
        out: Tensor = self.out(x + (weights @ value).reshape(x.shape))
        return out


class FusingStep(nn.Module):
    """Narrow x, weight its channels by what both sides say, double, concatenate the encoder's map, two convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, reduction: int):
        super().__init__()
        self.narrow = nn.Sequential(
            ConvBNReLU(in_channels, in_channels), ConvBNReLU(in_channels, skip_channels, kernel_size=1)
        )
        self.low_gate = ChannelGate(skip_channels, reduction)
        self.high_gate = ChannelGate(skip_channels, reduction)
        self.conv1 = ConvBNReLU(2 * skip_channels, out_channels)
        self.conv2 = ConvBNReLU(out_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map x (N, in_channels, h, w) and skip (N, skip_channels, 2h, 2w) to (N, out_channels, 2h, 2w)."""
        x = self.narrow(x)
        x = x * (self.high_gate(x) + self.low_gate(skip))
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        out: Tensor = self.conv2(self.conv1(torch.cat([x, skip], dim=1)))
        return out


class PlainDoubling(nn.Module):
    """Double, two convolutions: the step where the encoder has no map."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = ConvBNReLU(in_channels, out_channels)
        self.conv2 = ConvBNReLU(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, 2h, 2w)."""
        out: Tensor = self.conv2(self.conv1(F.interpolate(x, scale_factor=2.0, mode="nearest")))
        return out


class MANet(DenseNetwork):
    """Encoder, position attention, fusing steps, 3x3 classifier: logits at stride 1, or coarser, see the config."""

    def __init__(self, config: MANetConfig):
        super().__init__(config)
        encoder = self.encoder
        self.size_divisibility = max(self.size_divisibility, encoder.strides[-1])
        skips = doubling_steps(encoder.strides, encoder.channels, len(config.decoder_channels), network="MA-Net")
        deepest = encoder.channels[-1]
        self.attention = PositionAttention(deepest, config.attention_channels)
        inputs = (deepest, *config.decoder_channels[:-1])
        self.decoder = nn.ModuleList(
            FusingStep(width, skip, out, config.reduction) if skip else PlainDoubling(width, out)
            for width, skip, out in zip(inputs, skips, config.decoder_channels, strict=True)
        )
        self.add_classifier(config, config.decoder_channels[-1], self.attention, self.decoder, kernel_size=3)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, decoder_channels[-1], H/s, W/s)."""
        *skips, deepest = features
        x: Tensor = self.attention(deepest)
        for step in self.decoder.children():
            x = step(x, skips.pop()) if skips else step(x)
        return x


ARCHITECTURE = Architecture(
    name="manet",
    title="MA-Net",
    paper="https://doi.org/10.1109/ACCESS.2020.3025372",
    tasks=("semantic",),
    output=SemanticLogits,
    config=MANetConfig,
    build=MANet,
    variants={
        "manet_r34": {"encoder": "resnet34"},
        "manet_r50": {"encoder": "resnet50"},
    },
    tiny={
        "encoder": "resnet18_w8",
        "decoder_channels": (8, 8, 8, 4, 4),
        "attention_channels": 4,
        "reduction": 1,
        "aux": True,
    },
)
