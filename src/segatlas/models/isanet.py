"""ISANet: interlaced sparse self-attention.

Paper: Huang et al. 2019, "Interlaced Sparse Self-Attention for Semantic Segmentation",
https://arxiv.org/abs/1907.12273.

Idea: cut the map into P x Q equal tiles. First each pixel attends to the pixels at its own place in all tiles (far
away), then to the pixels of its own tile (near by). After both steps every pixel has heard of every other, at a small
part of the cost of full attention.

Letters: N batch, C image channels, K classes, H W image, h w map before the classifier, E channels of the encoder's
last map, D decoder width, R width of queries and keys, P Q tiles down and across, p q pixels of a tile.

How ours differs: nothing in the numbers. Attention is fused and keeps no matrix of pairs. As in MMSegmentation, whose
form this is (encoder at stride 8, first convolution joined with the result), a map that is not made of whole tiles
grows by zeros on all sides, which are attended to like pixels, and is cropped afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.padding import cut
from segatlas.models.architecture import Architecture
from segatlas.models.dense import DenseNetwork, HeadConfig
from segatlas.ops import attend
from segatlas.structures import SemanticLogits


@dataclass(frozen=True, kw_only=True)
class ISANetConfig(HeadConfig):
    """Settings of an ISANet, besides those of `HeadConfig`.

    attention_channels: width of queries and keys, R.
    tile: height and width of a tile in pixels of the map, (p, q).
    """

    attention_channels: int = 256
    tile: tuple[int, int] = (8, 8)


class SelfAttention(nn.Module):
    """Every pixel of a map attends to every pixel of that map."""

    def __init__(self, channels: int, inner: int):
        super().__init__()
        self.query = nn.Sequential(ConvBNReLU(channels, inner, 1), ConvBNReLU(inner, inner, 1))
        self.key = nn.Sequential(ConvBNReLU(channels, inner, 1), ConvBNReLU(inner, inner, 1))
        self.value = nn.Conv2d(channels, channels, kernel_size=1)
        self.out = ConvBNReLU(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (M, D, a, b) to the same shape."""
        x = attend(self.query(x), self.key(x), self.value(x))
        # In the published layout, so that sums have the published order: two sharp attentions in a row make a
        # hundredfold of a difference in rounding.
        out: Tensor = self.out(x.contiguous())
        return out


class InterlacedAttention(nn.Module):
    """Attention among pixels at the same place of all tiles, then within each tile (Figure 2 of the paper).

    Args:
        channels: of the map, D.
        inner: width of queries and keys, R.
        tile: (p, q).
    """

    def __init__(self, channels: int, inner: int, tile: tuple[int, int]):
        super().__init__()
        self.tile = tile
        self.far = SelfAttention(channels, inner)
        self.near = SelfAttention(channels, inner)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, h, w) to the same shape."""
        (p, q), (height, width) = self.tile, x.shape[-2:]
        down, across = -(-height // p), -(-width // q)  # P, Q
        grow_h, grow_w = down * p - height, across * q - width
        top, left = grow_h // 2, grow_w // 2
        x = F.pad(x, (left, grow_w - left, top, grow_h - top))
        x = x.unflatten(3, (across, q)).unflatten(2, (down, p))  # (N, D, P, p, Q, q)

        x = x.permute(0, 3, 5, 1, 2, 4)  # (N, p, q, D, P, Q)
        x = self.far(x.flatten(0, 2)).unflatten(0, x.shape[:3])
        x = x.permute(0, 4, 5, 3, 1, 2)  # (N, P, Q, D, p, q)
        x = self.near(x.flatten(0, 2)).unflatten(0, x.shape[:3])

        x = x.permute(0, 3, 1, 4, 2, 5)  # (N, D, P, p, Q, q)
        return cut(x.flatten(4, 5).flatten(2, 3), top, left, (height, width))


class ISANet(DenseNetwork):
    """Encoder, convolution, interlaced attention, joined with its own input: logits at the encoder's stride."""

    keeps_order = True  # attention between pixels magnifies rounding, see `segatlas.inference.fast_form`

    def __init__(self, config: ISANetConfig):
        super().__init__(config)
        width = config.channels
        self.before = ConvBNReLU(self.encoder.channels[-1], width)
        self.attention = InterlacedAttention(width, config.attention_channels, config.tile)
        self.fuse = ConvBNReLU(2 * width, width, 1)
        self.add_classifier(config, width, self.before, self.attention, self.fuse)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        x = self.before(features[-1])  # (N, D, h, w)
        out: Tensor = self.fuse(torch.cat([self.attention(x), x], dim=1))
        return out


ARCHITECTURE = Architecture(
    name="isanet",
    title="ISANet",
    paper="https://arxiv.org/abs/1907.12273",
    tasks=("semantic",),
    output=SemanticLogits,
    config=ISANetConfig,
    build=ISANet,
    variants={"isanet_r50": {"encoder": "resnet50c"}, "isanet_r101": {"encoder": "resnet101c"}},
    tiny={"encoder": "resnet18_w8", "channels": 8, "attention_channels": 4, "tile": (4, 4), "aux": True},
)
