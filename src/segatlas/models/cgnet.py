"""CGNet: every block looks at a place, at its surroundings and at the whole image, from the first stage on.

Paper: Wu et al. 2021, "CGNet: A Light-weight Context Guided Network for Semantic Segmentation",
https://arxiv.org/abs/1811.08201.

Idea: a block filters each channel twice, plainly and dilated, joins both, and weighs the channels by what the whole
image shows. Half a million parameters are enough for that on Cityscapes.

Letters: N batch, C image channels, K classes, H W image, E widths.

How ours differs: nothing in the numbers.

Any image size: nothing is padded; maps round up.
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
from segatlas.layers.prelu import PReLU
from segatlas.models.architecture import Architecture, require_at_least
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of

EPS = 1e-3
"""Of batch norm."""


@dataclass(frozen=True, kw_only=True)
class CGNetConfig:
    """Settings of a CGNet.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    widths: channels of the three stages, E; each even.
    blocks: context-guided blocks of the second and third stage.
    dilations: of the surroundings in these stages.
    reductions: how many times narrower the channels' weights are squeezed in these stages.
    dropout: fraction of channels dropped before the classifier while training.
    align_corners: how logits are upsampled.
    """

    num_classes: int
    in_channels: int = 3
    widths: tuple[int, int, int] = (32, 64, 128)
    blocks: tuple[int, int] = (3, 21)
    dilations: tuple[int, int] = (2, 4)
    reductions: tuple[int, int] = (8, 16)
    dropout: float = 0.0
    align_corners: bool = False

    def __post_init__(self) -> None:
        """Refuse a dropout below 0, and widths that are no two halves."""
        require_at_least(self, dropout=0)
        if min(self.widths) < 2 or any(width % 2 for width in self.widths):
            raise UsageError(f"widths: got {list(self.widths)}, expected even numbers")


class NormPReLU(nn.Sequential):
    """Batch norm and a ReLU whose slope below zero is learned, channel by channel."""

    def __init__(self, channels: int):
        super().__init__(BatchNorm2d(channels, eps=EPS), PReLU(channels))


class ConvPReLU(nn.Module):
    """A convolution without bias, batch norm, PReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False)
        self.bn = BatchNorm2d(out_channels, eps=EPS)
        self.activation = PReLU(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h / stride, w / stride)."""
        out: Tensor = self.activation(self.bn(self.conv(x)))
        return out


class GlobalWeights(nn.Module):
    """Channels weighted by what the whole image shows."""

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // reduction)
        self.excite = nn.Linear(channels // reduction, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to the same shape."""
        weights = self.excite(F.relu(self.squeeze(x.mean((2, 3))))).sigmoid()
        return x * weights[:, :, None, None]


class ContextGuidedBlock(nn.Module):
    """The place and its surroundings, joined and weighted by the whole image; halves the map, or has a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, *, dilation: int, reduction: int, halves: bool):
        super().__init__()
        width = out_channels if halves else out_channels // 2
        kernel_size, stride = (3, 2) if halves else (1, 1)
        self.first = ConvPReLU(in_channels, width, kernel_size, stride=stride)
        self.place = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.surroundings = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, groups=width, bias=False)
        self.norm = NormPReLU(2 * width)
        self.reduce = nn.Conv2d(2 * width, out_channels, 1, bias=False) if halves else None
        self.whole = GlobalWeights(out_channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h/2, w/2) or, with a shortcut, (N, out_channels, h, w)."""
        y = self.first(x)
        y = self.norm(torch.cat([self.place(y), self.surroundings(y)], dim=1))
        if self.reduce is not None:
            out: Tensor = self.whole(self.reduce(y))
            return out
        return x + self.whole(y)


class GuidedStage(nn.Module):
    """A block that halves the map, and further ones; what each of both gave is handed on."""

    def __init__(self, in_channels: int, width: int, blocks: int, *, dilation: int, reduction: int):
        super().__init__()
        self.blocks = nn.ModuleList(
            ContextGuidedBlock(
                width if index else in_channels, width, dilation=dilation, reduction=reduction, halves=index == 0
            )
            for index in range(blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, 2 width, h/2, w/2): after the last block, and after the first."""
        first, *further = self.blocks
        halved = x = first(x)
        for block in further:
            x = block(x)
        return torch.cat([x, halved], dim=1)


class ContextGuidedEncoder(PyramidEncoder):
    """Three convolutions at stride 2, two guided stages; the image itself is injected before each stage."""

    def __init__(self, config: CGNetConfig):
        super().__init__()
        first, second, third = config.widths
        image = config.in_channels
        self.stem = nn.Sequential(
            ConvPReLU(image, first, 3, stride=2), ConvPReLU(first, first, 3), ConvPReLU(first, first, 3)
        )
        self.channels, self.strides = (first + image, 2 * second + image, 2 * third), (2, 4, 8)
        self.norms = nn.ModuleList(NormPReLU(width) for width in self.channels)
        self.guided = nn.ModuleList(
            GuidedStage(given, width, blocks, dilation=dilation, reduction=reduction)
            for given, width, blocks, dilation, reduction in zip(
                self.channels[:2], (second, third), config.blocks, config.dilations, config.reductions, strict=True
            )
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to maps at strides 2, 4, 8."""
        halved = F.avg_pool2d(x, 3, stride=2, padding=1)
        quartered = F.avg_pool2d(halved, 3, stride=2, padding=1)
        maps = [self.norms[0](torch.cat([self.run_stage(self.stem, x), halved], dim=1))]
        y = self.run_stage(self.guided[0], maps[-1])
        maps.append(self.norms[1](torch.cat([y, quartered], dim=1)))
        y = self.run_stage(self.guided[1], maps[-1])
        last, first = y.chunk(2, dim=1)
        return [*maps, self.norms[2](torch.cat([first, last], dim=1))]

    def stages(self) -> list[list[nn.Module]]:
        """Return the stem and both guided stages, each with the norm after it."""
        return [[part, norm] for part, norm in zip((self.stem, *self.guided), self.norms, strict=True)]


class CGNet(nn.Module):
    """Encoder and 1x1 classifier: logits at stride 8."""

    def __init__(self, config: CGNetConfig):
        super().__init__()
        self.resample = Resample(align_corners=config.align_corners)
        self.encoder = ContextGuidedEncoder(config)
        self.dropout = nn.Dropout2d(config.dropout)
        self.classifier = nn.Conv2d(self.encoder.channels[-1], config.num_classes, kernel_size=1)
        init_weights(self)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return the encoder's last map, which is classified as it is: (N, 2 E3, H/8, W/8)."""
        return features[-1]

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H/8, W/8)."""
        x = image_of(inputs)
        logits = self.classifier(self.dropout(self.decode(self.encoder(x))))
        return SemanticLogits(logits, (x.shape[-2], x.shape[-1]), self.resample)


ARCHITECTURE = Architecture(
    name="cgnet",
    title="CGNet",
    paper="https://arxiv.org/abs/1811.08201",
    tasks=("semantic",),
    output=SemanticLogits,
    config=CGNetConfig,
    build=CGNet,
    tiny={"widths": (8, 8, 16), "blocks": (2, 2), "reductions": (2, 2)},
)
