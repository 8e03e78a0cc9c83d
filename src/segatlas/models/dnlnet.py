"""DNLNet: disentangled non-local networks.

Paper: Yin et al. 2020, "Disentangled Non-Local Neural Networks", https://arxiv.org/abs/2006.06668.

Idea: the weight that a non-local block gives a pair of pixels has two parts mixed up: how alike the two are, and how
salient the seen one is whoever looks. Here each part has its own softmax: likeness of whitened features (their mean
over the image taken off), and one map of saliency.

Letters: N batch, C image channels, K classes, H W image, h w map before the classifier, E channels of the encoder's
last map, D decoder width, R width inside the block (D / reduction).

How ours differs: nothing in the numbers. The likeness goes through fused attention, so that the matrix of all pairs of
pixels, (h w)^2 numbers, is never built; the salient part is the same for every pixel, and is one vector an image. The
form around the block, and the scale of the likeness (by sqrt(R) and a temperature), are MMSegmentation's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.init import init_weights
from segatlas.layers.norm import BatchNorm2d
from segatlas.models.architecture import Architecture
from segatlas.models.dense import DenseNetwork, HeadConfig
from segatlas.ops import attend
from segatlas.structures import SemanticLogits


@dataclass(frozen=True, kw_only=True)
class DNLNetConfig(HeadConfig):
    """Settings of a disentangled non-local network, besides those of `HeadConfig`.

    reduction: how many times narrower the block is inside, D / R.
    use_scale: divide the likeness by sqrt(R) before its softmax.
    temperature: divide the likeness by this too.
    """

    reduction: int = 2
    use_scale: bool = True
    temperature: float = 0.05


class DisentangledNonLocalBlock(nn.Module):
    """Adds to each pixel what it finds in pixels like it, and what is salient in the image (Figure 2 of the paper).

    Args:
        channels: of the map, D.
        inner: width of queries, keys and values, R.
        scale: factor of the likeness before its softmax.
    """

    def __init__(self, channels: int, inner: int, *, scale: float):
        super().__init__()
        self.scale = scale
        self.theta = nn.Conv2d(channels, inner, kernel_size=1)
        self.phi = nn.Conv2d(channels, inner, kernel_size=1)
        self.g = nn.Conv2d(channels, inner, kernel_size=1)
        self.saliency = nn.Conv2d(channels, 1, kernel_size=1)
        self.conv = nn.Conv2d(inner, channels, kernel_size=1, bias=False)
        self.bn = BatchNorm2d(channels)
        init_weights(self)
        for part in (self.theta, self.phi, self.g, self.saliency):
            nn.init.normal_(part.weight, std=0.01)
        nn.init.zeros_(self.bn.weight)  # the block begins as the identity

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, h, w) to the same shape."""
        value = self.g(x)
        alike = attend(whiten(self.theta(x)), whiten(self.phi(x)), value, scale=self.scale)  # (N, R, h, w)
        saliency = self.saliency(x).flatten(2).softmax(dim=-1)  # (N, 1, h w)
        salient = (value.flatten(2) @ saliency.transpose(1, 2)).unsqueeze(-1)  # (N, R, 1, 1)
        out: Tensor = x + self.bn(self.conv(alike + salient))
        return out


def whiten(x: Tensor) -> Tensor:
    """Take off a map's mean over the image: (N, C', h, w) to the same shape."""
    return x - x.mean(dim=(2, 3), keepdim=True)


class DNLNet(DenseNetwork):
    """Encoder, convolution, block, convolution, joined with the encoder's map: logits at its stride."""

    keeps_order = True  # attention between pixels magnifies rounding, see `segatlas.inference.fast_form`

    def __init__(self, config: DNLNetConfig):
        super().__init__(config)
        in_channels, width = self.encoder.channels[-1], config.channels
        inner = max(width // config.reduction, 1)
        scale = (inner**-0.5 if config.use_scale else 1.0) / config.temperature
        self.before = ConvBNReLU(in_channels, width)
        self.block = DisentangledNonLocalBlock(width, inner, scale=scale)
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
    name="dnlnet",
    title="DNLNet",
    paper="https://arxiv.org/abs/2006.06668",
    tasks=("semantic",),
    output=SemanticLogits,
    config=DNLNetConfig,
    build=DNLNet,
    variants={"dnl_r50": {"encoder": "resnet50c"}, "dnl_r101": {"encoder": "resnet101c"}},
    tiny={"encoder": "resnet18_w8", "channels": 8, "aux": True},
)
