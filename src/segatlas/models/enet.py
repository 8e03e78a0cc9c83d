"""ENet: an early drop to stride 8, thin bottlenecks there, and a small decoder that puts maxima back.

Paper: Paszke et al. 2016, "ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation",
https://arxiv.org/abs/1606.02147.

Idea: most of the work of a segmentation network lies at high resolution, so ENet goes to stride 8 within two blocks and
stays there: residual bottlenecks that look plainly, dilated, or along a column and a row in turn. The decoder only
refines: it puts values back where the encoder's pooling found its maxima.

Letters: N batch, C image channels, K classes, H W image, h w any map, E widths.

How ours differs: nothing in the layers of the paper's table. What the paper leaves open is as in its authors' program
(e-lab/ENet-training): batch norm with an epsilon of 1e-3, a bias in the convolution between two projections, the row
before the column, no dropout in the decoder; the decoder's activations are the paper's PReLU, where that program has
ReLU.

Any image size: padded right and bottom with zeros to a multiple of 8, and `canvas` says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.errors import UsageError
from segatlas.layers.init import init_weights
from segatlas.layers.norm import BatchNorm2d
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.prelu import PReLU
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.structures import Inputs, SemanticLogits, image_of

EPS = 1e-3
"""Of batch norm."""
SQUEEZE = 4
"""How many times narrower a bottleneck is inside."""
KERNEL = 5
"""Length of the column and of the row."""
PLAIN, ALONG = 1, 0
"""Kinds of a bottleneck besides its dilations: a plain convolution, a row and a column."""
ROUND = (PLAIN, 2, ALONG, 4, PLAIN, 8, ALONG, 16)
"""Kinds of the bottlenecks of a round at stride 8, in order."""


@dataclass(frozen=True, kw_only=True)
class ENetConfig:
    """Settings of an ENet.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    widths: channels at strides 2, 4 and 8, E; each more than the one before, and at least 4.
    blocks: bottlenecks at stride 4, after the one that leads there.
    rounds: of eight bottlenecks each at stride 8.
    block_dropout: fraction of channels that the encoder's bottlenecks drop while training, at stride 4 and at stride 8.
    """

    num_classes: int
    in_channels: int = 3
    widths: tuple[int, int, int] = (16, 64, 128)
    blocks: int = 4
    rounds: int = 2
    block_dropout: tuple[float, float] = (0.01, 0.1)

    def __post_init__(self) -> None:
        """Refuse widths that do not grow."""
        require_at_least(self, blocks=0, rounds=0)
        if not SQUEEZE <= self.widths[0] < self.widths[1] < self.widths[2]:
            raise UsageError(f"widths: got {list(self.widths)}, expected {SQUEEZE} or more, each more than the last")


class NormPReLU(nn.Sequential):
    """Batch norm and a ReLU whose slope below zero is learned, channel by channel."""

    def __init__(self, channels: int):
        super().__init__(BatchNorm2d(channels, eps=EPS), PReLU(channels))


def projection(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Conv2d:
    """Return a 1x1 convolution without bias, or a 2x2 one that halves the map."""
    return nn.Conv2d(in_channels, out_channels, stride, stride, bias=False)


def middle(channels: int, kind: int) -> nn.Module:
    """Return the convolution between two projections: 3x3 at a dilation, or a row and a column."""
    if kind != ALONG:
        return nn.Conv2d(channels, channels, 3, padding=kind, dilation=kind)
    edge = KERNEL // 2
    row = nn.Conv2d(channels, channels, (1, KERNEL), padding=(0, edge), bias=False)
    return nn.Sequential(row, nn.Conv2d(channels, channels, (KERNEL, 1), padding=(edge, 0)))


class Branch(nn.Sequential):
    """Projection, the convolution between, projection; batch norm after each, PReLU between them."""

    def __init__(self, into: nn.Conv2d, between: nn.Module, out_channels: int):
        inside = into.out_channels
        last = (projection(inside, out_channels), BatchNorm2d(out_channels, eps=EPS))
        super().__init__(into, NormPReLU(inside), between, NormPReLU(inside), *last)


class Bottleneck(nn.Module):
    """A branch beside the map itself."""

    def __init__(self, channels: int, kind: int = PLAIN, *, dropout: float = 0.0):
        super().__init__()
        inside = channels // SQUEEZE
        self.branch = Branch(projection(channels, inside), middle(inside, kind), channels)
        self.dropout = nn.Dropout2d(dropout)
        self.activation = PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to the same shape."""
        out: Tensor = self.activation(x + self.dropout(self.branch(x)))
        return out


class DownBottleneck(nn.Module):
    """To half the size: a branch beside the largest values, with channels of zeros behind them."""

    def __init__(self, in_channels: int, out_channels: int, *, dropout: float):
        super().__init__()
        inside = out_channels // SQUEEZE
        self.added = out_channels - in_channels
        self.branch = Branch(projection(in_channels, inside, stride=2), middle(inside, PLAIN), out_channels)
        self.dropout = nn.Dropout2d(dropout)
        self.activation = PReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h/2, w/2)."""
        pooled = F.pad(F.max_pool2d(x, 2), (0, 0, 0, 0, 0, self.added))
        out: Tensor = self.activation(pooled + self.dropout(self.branch(x)))
        return out


class UpBottleneck(nn.Module):
    """To twice the size: a branch beside values that go where the encoder's pooling found its maxima."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        inside = out_channels // SQUEEZE
        doubled = nn.ConvTranspose2d(inside, inside, 3, stride=2, padding=1, output_padding=1)
        self.branch = Branch(projection(in_channels, inside), doubled, out_channels)
        self.main = nn.Sequential(projection(in_channels, out_channels), BatchNorm2d(out_channels, eps=EPS))
        self.activation = PReLU(out_channels)

    def forward(self, x: Tensor, pooled: Tensor) -> Tensor:
        """Map (N, in_channels, h, w), and what was pooled (N, out_channels, 2 h, 2 w), to the shape of that."""
        places = F.max_pool2d(pooled, 2, return_indices=True)[1]
        empty = pooled.new_zeros(pooled.shape).flatten(2)
        main = empty.scatter(2, places.flatten(2), self.main(x).flatten(2).to(empty.dtype)).view(pooled.shape)
        out: Tensor = self.activation(main + self.branch(x))
        return out


class InitialBlock(nn.Module):
    """To half the size by a strided convolution and by max pooling, concatenated."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.pools = out_channels > in_channels
        convolved = out_channels - in_channels if self.pools else out_channels
        self.conv = nn.Conv2d(in_channels, convolved, 3, stride=2, padding=1)
        self.norm = NormPReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h/2, w/2)."""
        y = self.conv(x)
        out: Tensor = self.norm(torch.cat([y, F.max_pool2d(x, 2)], dim=1) if self.pools else y)
        return out


class ENetEncoder(PyramidEncoder):
    """The initial block and the stages at strides 4 and 8."""

    size_divisibility = 8

    def __init__(self, config: ENetConfig):
        super().__init__()
        first, second, third = config.widths
        light, heavy = config.block_dropout
        self.initial = InitialBlock(config.in_channels, first)
        self.stage1 = nn.Sequential(
            DownBottleneck(first, second, dropout=light),
            *(Bottleneck(second, dropout=light) for _ in range(config.blocks)),
        )
        self.stage2 = nn.Sequential(
            DownBottleneck(second, third, dropout=heavy),
            *(Bottleneck(third, kind, dropout=heavy) for _ in range(config.rounds) for kind in ROUND),
        )
        self.channels, self.strides = config.widths, (2, 4, 8)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to maps at strides 2, 4, 8."""
        maps = []
        for stage in (self.initial, self.stage1, self.stage2):
            x = self.run_stage(stage, x)
            maps.append(x)
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Return the initial block and both stages."""
        return [[self.initial], [self.stage1], [self.stage2]]


class ENet(nn.Module):
    """Encoder, two doublings with bottlenecks, a transposed convolution as classifier: logits at stride 1."""

    def __init__(self, config: ENetConfig):
        super().__init__()
        self.encoder = ENetEncoder(config)
        first, second, third = config.widths
        self.up4 = UpBottleneck(third, second)
        self.stage4 = nn.Sequential(Bottleneck(second), Bottleneck(second))
        self.up5 = UpBottleneck(second, first)
        self.stage5 = Bottleneck(first)
        self.classifier = nn.ConvTranspose2d(first, config.num_classes, 2, stride=2)
        init_weights(self)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, E1, H/2, W/2)."""
        fine, middle, deep = features
        x = self.stage4(self.up4(deep, middle))
        out: Tensor = self.stage5(self.up5(x, fine))
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H', W'), the next multiples of 8."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        logits = self.classifier(self.decode(self.encoder(x)))
        return SemanticLogits(logits, canvas=(x.shape[-2], x.shape[-1]))


ARCHITECTURE = Architecture(
    name="enet",
    title="ENet",
    paper="https://arxiv.org/abs/1606.02147",
    tasks=("semantic",),
    output=SemanticLogits,
    config=ENetConfig,
    build=ENet,
    tiny={"widths": (8, 12, 16), "blocks": 1, "rounds": 1},
)
