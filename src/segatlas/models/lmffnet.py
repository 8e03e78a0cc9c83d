"""LMFFNet: blocks that split and widen, merged with what went in and with the image, and a gate on the class scores.

Paper: Shi et al. 2022, "LMFFNet: A Well-Balanced Lightweight Network for Fast and Accurate Semantic Segmentation",
https://doi.org/10.1109/TNNLS.2022.3176493. Layers and widths are facts of the authors' repository
(github.com/Greak-1124/LMFFNet); the names in brackets below are the paper's.

Idea: a block halves the channels by a plain 3x3 convolution, filters one half near and the other far, channel by
channel, and widens again. At each stride what a group of blocks gave, what it was given, weighted channel by channel,
and the image itself are merged. The class scores at stride 8 are upsampled and multiplied by a gate at stride 4, which
sees both strides: edges come from there, not from a decoder.

Letters: N batch, C image channels, K classes, H W image, h w any map, E widths.

How ours differs: nothing in the layers. The authors' network takes sizes that are multiples of 8 only; ours pads to
them right and below, and `canvas` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.errors import UsageError
from segatlas.layers.norm import BatchNorm2d
from segatlas.layers.padding import pad_to_multiple
from segatlas.layers.prelu import PReLU
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.structures import Inputs, SemanticLogits, image_of

EPS = 1e-3
"""Of batch norm."""
REDUCTION = 8
"""How much narrower the hidden layer of a channel weighting is."""


@dataclass(frozen=True, kw_only=True)
class LMFFNetConfig:
    """Settings of an LMFFNet.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    widths: channels of the maps at strides 2, 4 and 8 before they are merged, E: the last two multiples of 4.
    dilations: of the far half of each block, at stride 4 and at stride 8: as many blocks as numbers.
    gate_channels: what the gate takes of the map at stride 4 and of that at stride 8.
    """

    num_classes: int
    in_channels: int = 3
    widths: tuple[int, int, int] = (32, 64, 128)
    dilations: tuple[tuple[int, ...], tuple[int, ...]] = ((2, 2, 2), (4, 4, 8, 8, 16, 16, 32, 32))
    gate_channels: tuple[int, int] = (16, 32)

    def __post_init__(self) -> None:
        """Refuse widths that cannot be halved twice, and numbers below 1."""
        require_at_least(self, in_channels=1)
        if min(self.widths) < 1 or any(width % 4 for width in self.widths[1:]):
            raise UsageError(f"widths: got {list(self.widths)}, expected numbers above 0, the last two multiples of 4")
        if min(self.gate_channels) < 1 or min((1, *self.dilations[0], *self.dilations[1])) < 1:
            found = f"got {list(self.dilations)} and {list(self.gate_channels)}"
            raise UsageError(f"dilations and gate_channels: {found}, expected numbers of 1 or more")


class NormPReLU(nn.Sequential):
    """Batch norm and a ReLU whose slope below zero is learned, channel by channel."""

    def __init__(self, channels: int):
        super().__init__(BatchNorm2d(channels, eps=EPS), PReLU(channels))


def conv_of(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Return a convolution without bias that keeps the size but for its stride, which rounds up."""
    padding = kernel_size // 2 * dilation
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)


class ConvPReLU(nn.Sequential):
    """A convolution without bias, batch norm, PReLU."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, dilation: int = 1,
        groups: int = 1,
    ):  # fmt: skip
        conv = conv_of(in_channels, out_channels, kernel_size, stride=stride, dilation=dilation, groups=groups)
        super().__init__(conv, NormPReLU(out_channels))


class SplitBlock(nn.Module):
    """Halve the channels, filter one half near and one far, widen, add what came in (SEM-B)."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.reduce = ConvPReLU(channels, half, 3)
        self.near = ConvPReLU(quarter, quarter, 3, groups=quarter)
        self.far = ConvPReLU(quarter, quarter, 3, dilation=dilation, groups=quarter)
        self.join = ConvPReLU(half, half, 3)
        self.widen = conv_of(half, channels, 1)
        self.norm = NormPReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to the same shape."""
        first, second = self.reduce(x).chunk(2, dim=1)
        y = self.join(torch.cat([self.near(first), self.far(second)], dim=1))
        out: Tensor = self.norm(self.widen(y) + x)
        return out


class Halve(nn.Module):
    """To half the size: a strided convolution, beside it the largest values where channels are added; norm, PReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.pools = in_channels < out_channels
        self.conv = conv_of(in_channels, out_channels - in_channels * self.pools, 3, stride=2)
        self.norm = NormPReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w), of even sides, to (N, out_channels, h/2, w/2)."""
        y = self.conv(x)
        if self.pools:
            y = torch.cat([y, F.max_pool2d(x, 2)], dim=1)
        out: Tensor = self.norm(y)
        return out


def quarters_of(x: Tensor) -> Tensor:
    """Average the four quarters of a map (N, C, h, w): (N, C, 2, 2). Those of an odd side share its middle line."""
    height, width = (x.shape[-2] + 1) // 2, (x.shape[-1] + 1) // 2
    rows = torch.stack([x[:, :, :height].mean(2), x[:, :, -height:].mean(2)], dim=2)
    return torch.stack([rows[..., :width].mean(3), rows[..., -width:].mean(3)], dim=3)


class QuarterWeighting(nn.Module):
    """Weight the channels of a map by its average and a weighted sum of the averages of its quarters (PMCA)."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(channels // REDUCTION, 1)
        self.quarters = nn.Conv2d(channels, channels, 2, groups=channels, bias=False)
        self.weigh = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), PReLU(), nn.Linear(hidden, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to the same shape."""
        seen = self.quarters(quarters_of(x)).flatten(1) + x.mean((2, 3))
        out: Tensor = self.weigh(seen)[:, :, None, None] * x
        return out


class Merge(nn.Sequential):
    """Maps of one size concatenated, norm, PReLU, and mixed by a 1x1 convolution (FFM)."""

    def __init__(self, channels: int):
        super().__init__(NormPReLU(channels), conv_of(channels, channels, 1))

    def forward(self, *maps: Tensor) -> Tensor:
        """Map (N, _, h, w) each to (N, channels, h, w), the sum of theirs."""
        return super().forward(torch.cat(maps, dim=1))


class Level(nn.Module):
    """To half the size, the blocks, then both merged with the image of that size (FFM-B)."""

    def __init__(self, in_channels: int, channels: int, image_channels: int, dilations: tuple[int, ...]):
        super().__init__()
        self.down = Halve(in_channels, channels)
        self.blocks = nn.Sequential(*(SplitBlock(channels, dilation) for dilation in dilations))
        self.weighting = QuarterWeighting(channels)
        self.out_channels = 2 * channels + image_channels
        self.merge = Merge(self.out_channels)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) and the image at half of that to (N, out_channels, h/2, w/2)."""
        x = self.down(x)
        out: Tensor = self.merge(self.blocks(x), self.weighting(x), image)
        return out


def halved(image: Tensor) -> Tensor:
    """Map (N, C, h, w) to averages (N, C, h/2, w/2), rounding up; zeros beyond the edge are counted."""
    return F.avg_pool2d(image, 3, stride=2, padding=1)


class LMFFEncoder(PyramidEncoder):
    """Three convolutions at stride 2, then two levels; the averaged image is merged in at each stride."""

    size_divisibility = 8

    def __init__(self, config: LMFFNetConfig):
        super().__init__()
        image, (first, second, third) = config.in_channels, config.widths
        self.stem = nn.Sequential(
            ConvPReLU(image, first, 3, stride=2), ConvPReLU(first, first, 3), ConvPReLU(first, first, 3)
        )
        self.merge = Merge(first + image)
        self.level4 = Level(first + image, second, image, config.dilations[0])
        self.level8 = Level(self.level4.out_channels, third, image, config.dilations[1])
        self.channels = (first + image, self.level4.out_channels, self.level8.out_channels)
        self.strides = (2, 4, 8)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to maps at strides 2, 4, 8: E1, 2 E2, 2 E3 channels and those of the image."""
        image = halved(x)
        half = self.merge(self.run_stage(self.stem, x), image)  # (N, E1 + C, H/2, W/2)
        image = halved(image)
        fine = self.run_stage(partial(self.level4, image=image), half)  # (N, 2 E2 + C, H/4, W/4)
        deep = self.run_stage(partial(self.level8, image=halved(image)), fine)  # (N, 2 E3 + C, H/8, W/8)
        return [half, fine, deep]

    def stages(self) -> list[list[nn.Module]]:
        """Return the convolutions at stride 2 with their merging, and the levels."""
        return [[self.stem, self.merge], [self.level4], [self.level8]]


class GatedClassifier(nn.Module):
    """Scores of the deep map, upsampled, times a gate for each class at the fine map's size (most of MAD)."""

    def __init__(self, fine_channels: int, deep_channels: int, config: LMFFNetConfig):
        super().__init__()
        of_fine, of_deep = config.gate_channels
        self.scores = conv_of(deep_channels, config.num_classes, 1)
        self.fine = conv_of(fine_channels, of_fine, 1)
        self.deep = conv_of(deep_channels, of_deep, 1)
        self.mix = ConvPReLU(of_fine + of_deep, of_fine + of_deep, 3, groups=of_fine + of_deep)
        self.gate = conv_of(of_fine + of_deep, config.num_classes, 1)

    def forward(self, x: Tensor, fine: Tensor, deep: Tensor) -> Tensor:
        """Map x and deep (N, _, h, w), and fine (N, _, 2 h, 2 w), to logits (N, K, 2 h, 2 w)."""
        size = (fine.shape[-2], fine.shape[-1])
        coarse = F.interpolate(self.deep(deep), size=size, mode="bilinear", align_corners=False)
        gate = self.gate(self.mix(torch.cat([self.fine(fine), coarse], dim=1))).sigmoid()
        return F.interpolate(self.scores(x), size=size, mode="bilinear", align_corners=False) * gate


class LMFFNet(nn.Module):
    """Encoder, a 3x3 convolution of each channel of its deepest map, gated classifier: logits at stride 4."""

    def __init__(self, config: LMFFNetConfig):
        super().__init__()
        self.encoder = LMFFEncoder(config)
        _, fine, deep = self.encoder.channels
        self.conv = ConvPReLU(deep, deep, 3, groups=deep)
        self.classifier = GatedClassifier(fine, deep, config)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)  # by fan-in, as the authors start

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the deep map before the classifier: (N, 2 E3 + C, H/8, W/8)."""
        out: Tensor = self.conv(features[-1])
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H/4, W/4)."""
        x = pad_to_multiple(image_of(inputs), self.encoder.size_divisibility)
        features = self.encoder(x)
        logits = self.classifier(self.decode(features), *features[1:])
        return SemanticLogits(logits, canvas=(x.shape[-2], x.shape[-1]))


ARCHITECTURE = Architecture(
    name="lmffnet",
    title="LMFFNet",
    paper="https://doi.org/10.1109/TNNLS.2022.3176493",
    tasks=("semantic",),
    output=SemanticLogits,
    config=LMFFNetConfig,
    build=LMFFNet,
    tiny={"widths": (8, 8, 16), "dilations": ((2,), (4, 8)), "gate_channels": (4, 4)},
)
