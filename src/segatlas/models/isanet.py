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

from segatlas.encoders.contract import Encoder
from segatlas.encoders.spec import EncoderSpec, create_encoder
from segatlas.layers.conv import ConvBNReLU
from segatlas.layers.fcn_head import FCNHead
from segatlas.layers.init import init_weights
from segatlas.layers.padding import pad_to_multiple
from segatlas.models.architecture import Architecture
from segatlas.ops import attend
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of


@dataclass(frozen=True, kw_only=True)
class ISANetConfig:
    """Settings of an ISANet.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    encoder: an encoder, its output stride and options.
    channels: decoder width, D.
    attention_channels: width of queries and keys, R.
    tile: height and width of a tile in pixels of the map, (p, q).
    dropout: fraction of channels dropped before the classifier while training.
    align_corners: how logits are upsampled.
    aux: also train an FCN head, named "fcn", on the encoder's last map but one.
    aux_channels: its width; None = a quarter of its input's channels.
    """

    num_classes: int
    in_channels: int = 3
    encoder: EncoderSpec = EncoderSpec(name="resnet50c", output_stride=8)
    channels: int = 512
    attention_channels: int = 256
    tile: tuple[int, int] = (8, 8)
    dropout: float = 0.1
    align_corners: bool = False
    aux: bool = False
    aux_channels: int | None = None


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
        grow_h, grow_w = -height % p, -width % q
        top, left = grow_h // 2, grow_w // 2
        x = F.pad(x, (left, grow_w - left, top, grow_h - top))
        x = x.unflatten(3, (-1, q)).unflatten(2, (-1, p))  # (N, D, P, p, Q, q)

        x = x.permute(0, 3, 5, 1, 2, 4)  # (N, p, q, D, P, Q)
        x = self.far(x.flatten(0, 2)).unflatten(0, x.shape[:3])
        x = x.permute(0, 4, 5, 3, 1, 2)  # (N, P, Q, D, p, q)
        x = self.near(x.flatten(0, 2)).unflatten(0, x.shape[:3])

        x = x.permute(0, 3, 1, 4, 2, 5)  # (N, D, P, p, Q, q)
        return x.flatten(4, 5).flatten(2, 3)[:, :, top : top + height, left : left + width]


class ISANet(nn.Module):
    """Encoder, convolution, interlaced attention, joined with its own input: logits at the encoder's stride."""

    keeps_order = True  # attention between pixels magnifies rounding, see `segatlas.inference.fast_form`

    def __init__(self, config: ISANetConfig, encoder: Encoder):
        super().__init__()
        self.align_corners = config.align_corners
        width = config.channels
        self.encoder = encoder
        self.before = ConvBNReLU(encoder.channels[-1], width)
        self.attention = InterlacedAttention(width, config.attention_channels, config.tile)
        self.fuse = ConvBNReLU(2 * width, width, 1)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(width, config.num_classes, kernel_size=1)
        aux = FCNHead(encoder.channels[-2], config.num_classes, channels=config.aux_channels) if config.aux else None
        self.aux_head = aux
        for part in (self.before, self.attention, self.fuse, self.classifier, self.aux_head):
            if part is not None:
                init_weights(part)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, h, w)."""
        x = self.before(features[-1])  # (N, D, h, w)
        out: Tensor = self.fuse(torch.cat([self.attention(x), x], dim=1))
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, h, w)."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        features = self.encoder(x)
        logits = self.classifier(self.dropout(self.decode(features)))
        aux = {"fcn": self.aux_head(features[-2])} if self.aux_head is not None and self.training else {}
        canvas = (x.shape[-2], x.shape[-1])
        return SemanticLogits(logits, canvas, Resample(align_corners=self.align_corners), aux)


def build(config: ISANetConfig) -> ISANet:
    """Make the network."""
    return ISANet(
        config,
        create_encoder(config.encoder, in_channels=config.in_channels),
    )


ARCHITECTURE = Architecture(
    name="isanet",
    title="ISANet",
    paper="https://arxiv.org/abs/1907.12273",
    tasks=("semantic",),
    output=SemanticLogits,
    config=ISANetConfig,
    build=build,
    variants={"isanet_r50": {"encoder": "resnet50c"}, "isanet_r101": {"encoder": "resnet101c"}},
    tiny={"encoder": "resnet18_w8", "channels": 8, "attention_channels": 4, "tile": (4, 4), "aux": True},
)
