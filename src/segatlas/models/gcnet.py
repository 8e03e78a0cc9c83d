"""GCNet: global context networks.

Paper: Cao et al. 2019, "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond",
https://arxiv.org/abs/1904.11492.

Idea: in a trained non-local network every pixel looks at the same places. So look once for the whole image: one
softmax over pixels pools the map to a vector, a small bottleneck transforms it, and every pixel is given the result.

Letters: N batch, C image channels, K classes, H W image, h w map before the classifier, E channels of the encoder's
last map, D decoder width, R width of the bottleneck (D ratio).

How ours differs: nothing in the numbers. The form around the block is MMSegmentation's (encoder at stride 8).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segatlas.errors import UsageError
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.init import init_weights
from segatlas.models.architecture import Architecture
from segatlas.models.dense import DenseNetwork, HeadConfig
from segatlas.structures import SemanticLogits


@dataclass(frozen=True, kw_only=True)
class GCNetConfig(HeadConfig):
    """Settings of a global context network, besides those of `HeadConfig`.

    ratio: width of the bottleneck as a fraction of the decoder's, R / D.
    channel_add: add the context to every pixel.
    channel_mul: multiply every pixel by the sigmoid of the context (first, where both are on).
    """

    ratio: float = 0.25
    channel_add: bool = True
    channel_mul: bool = False


def bottleneck(channels: int, inner: int) -> nn.Sequential:
    """Return the transform of a vector (N, D, 1, 1): through R channels, normalised, and back to D."""
    narrow, wide = nn.Conv2d(channels, inner, kernel_size=1), nn.Conv2d(inner, channels, kernel_size=1)
    for conv in (narrow, wide):
        init_weights(conv)
    nn.init.zeros_(wide.weight)  # a new block adds nothing
    return nn.Sequential(narrow, nn.LayerNorm([inner, 1, 1]), nn.ReLU(inplace=True), wide)


class GlobalContextBlock(nn.Module):
    """Pools the map by a softmax over its pixels, and gives every pixel the transformed vector (Figure 4d).

    Args:
        channels: of the map, D.
        inner: width of the bottleneck, R.
        add: add the transformed vector.
        multiply: multiply by the sigmoid of a transformed vector, before adding.
    """

    def __init__(self, channels: int, inner: int, *, add: bool, multiply: bool):
        super().__init__()
        self.mask = nn.Conv2d(channels, 1, kernel_size=1)
        self.add = bottleneck(channels, inner) if add else None
        self.multiply = bottleneck(channels, inner) if multiply else None
        init_weights(self.mask)
        nn.init.kaiming_normal_(self.mask.weight, mode="fan_in", nonlinearity="relu")  # fan-out is 1

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, h, w) to the same shape."""
        weights = self.mask(x).flatten(2).softmax(dim=-1)  # (N, 1, h w)
        context = (x.flatten(2) @ weights.transpose(1, 2)).unsqueeze(-1)  # (N, D, 1, 1)
        if self.multiply is not None:
            x = x * self.multiply(context).sigmoid()
        return x if self.add is None else x + self.add(context)


class GCNet(DenseNetwork):
    """Encoder, convolution, block, convolution, joined with the encoder's map: logits at its stride."""

    def __init__(self, config: GCNetConfig):
        super().__init__(config)
        if not (config.channel_add or config.channel_mul):
            raise UsageError("channel_add and channel_mul are both off: the context would go nowhere")
        in_channels, width = self.encoder.channels[-1], config.channels
        inner = max(round(width * config.ratio), 1)
        self.before = ConvBNReLU(in_channels, width)
        self.block = GlobalContextBlock(width, inner, add=config.channel_add, multiply=config.channel_mul)
        self.after = ConvBNReLU(width, width)
        self.fuse = ConvBNReLU(in_channels + width, width)
        self.add_classifier(config, width, self.before, self.after, self.fuse)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        last = features[-1]  # (N, E, h, w)
        x = self.after(self.block(self.before(last)))  # (N, D, h, w)
        out: Tensor = self.fuse(torch.cat([last, x], dim=1))
        return out


ARCHITECTURE = Architecture(
    name="gcnet",
    title="GCNet",
    paper="https://arxiv.org/abs/1904.11492",
    tasks=("semantic",),
    output=SemanticLogits,
    config=GCNetConfig,
    build=GCNet,
    variants={"gcnet_r50": {"encoder": "resnet50c"}, "gcnet_r101": {"encoder": "resnet101c"}},
    tiny={"encoder": "resnet18_w8", "channels": 8, "aux": True},
)
