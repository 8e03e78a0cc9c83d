"""ESPNet: every convolution is a 1x1 reduction and a pyramid of dilated 3x3 ones, added up from fine to coarse.

Paper: Mehta et al. 2018, "ESPNet: Efficient Spatial Pyramid of Dilated Convolutions for Semantic Segmentation",
https://arxiv.org/abs/1803.06815.

Idea: a map is reduced to a fifth of the channels, five convolutions of dilations 1 to 16 look at it, and their results
are concatenated, each added to the one before so that no grid shows. ESPNet-C ends at stride 8; ESPNet climbs to full
size with a decoder as thin as the classes are many.

Letters: N batch, C image channels, K classes, H W image, E widths, D width of the decoder.

How ours differs: nothing in the numbers. The authors' networks have one output more than classes, for pixels without a
label; here that output is kept but never predicted (`ignored_output`). Their files hold two forms of the finest
skip (`image_in_skip`).

Any image size: ESPNet is padded right and bottom with zeros to a multiple of 8, and `canvas` says so; ESPNet-C is not
padded, maps round up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
from segatlas.structures import Inputs, Resample, SemanticLogits, image_of

EPS = 1e-3
"""Of batch norm."""
DILATIONS = (1, 2, 4, 8, 16)


@dataclass(frozen=True, kw_only=True)
class ESPNetConfig:
    """Settings of an ESPNet.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    widths: channels at strides 2, 4 and 8, E; the last two at least 5.
    blocks: blocks at strides 4 and 8, after the one that leads there.
    decoder: climb to full size; else it is an ESPNet-C, which ends at stride 8.
    channels: width of the decoder, D, at least 5; None = the classifier's outputs.
    image_in_skip: the finest skip holds the image beside the first convolution's map, both normalised.
    ignored_output: the classifier has one output more than classes, for pixels without a label, as the authors train
        theirs; it is never predicted.
    bgr: the network was trained on channels in the order blue, green, red, so the image's are turned round for it.
    align_corners: how an ESPNet-C's logits are upsampled.
    """

    num_classes: int
    in_channels: int = 3
    widths: tuple[int, int, int] = (16, 64, 128)
    blocks: tuple[int, int] = (2, 8)
    decoder: bool = True
    channels: int | None = None
    image_in_skip: bool = False
    ignored_output: bool = False
    bgr: bool = False
    align_corners: bool = True

    def __post_init__(self) -> None:
        """Refuse maps that are too narrow for five dilations."""
        least = len(DILATIONS)
        if min(self.widths[1:]) < least:
            raise UsageError(f"widths: got {list(self.widths)}, expected {least} or more at strides 4 and 8")
        if self.channels is not None:
            require_at_least(self, channels=least)

    @property
    def outputs(self) -> int:
        """Outputs of the classifier: classes, and one for pixels without a label."""
        return self.num_classes + self.ignored_output

    @property
    def decoder_channels(self) -> int:
        """Width of the decoder, D."""
        return max(self.outputs, len(DILATIONS)) if self.channels is None else self.channels


class NormPReLU(nn.Sequential):
    """Batch norm and a ReLU whose slope below zero is learned, channel by channel."""

    def __init__(self, channels: int):
        super().__init__(BatchNorm2d(channels, eps=EPS), PReLU(channels))


class ConvPReLU(nn.Sequential):
    """A 3x3 convolution without bias, batch norm, PReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1):
        conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        super().__init__(conv, NormPReLU(out_channels))


class SpatialPyramid(nn.Module):
    """Reduce to a fifth, look at five dilations, add them up from fine to coarse, concatenate; batch norm, PReLU.

    It halves the map, or has a shortcut where `residual`.
    """

    def __init__(self, in_channels: int, out_channels: int, *, halves: bool = False, residual: bool = False):
        super().__init__()
        width = out_channels // len(DILATIONS)
        rest = out_channels - width * (len(DILATIONS) - 1)
        kernel_size, stride = (3, 2) if halves else (1, 1)
        self.reduce = nn.Conv2d(in_channels, width, kernel_size, stride, kernel_size // 2, bias=False)
        self.dilated = nn.ModuleList(
            nn.Conv2d(width, rest if index == 0 else width, 3, padding=dilation, dilation=dilation, bias=False)
            for index, dilation in enumerate(DILATIONS)
        )
        self.norm = NormPReLU(out_channels)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w), or to half the size."""
        y = self.reduce(x)
        first, *others = (conv(y) for conv in self.dilated)
        sums = [others[0]]
        for other in others[1:]:
            sums.append(sums[-1] + other)
        joined = torch.cat([first, *sums], dim=1)
        out: Tensor = self.norm(x + joined if self.residual else joined)
        return out


class PyramidStage(nn.Module):
    """A block that halves the map and further ones with shortcuts; what each of both gave is handed on."""

    def __init__(self, in_channels: int, width: int, blocks: int):
        super().__init__()
        self.down = SpatialPyramid(in_channels, width, halves=True)
        self.blocks = nn.Sequential(*(SpatialPyramid(width, width, residual=True) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, 2 width, h/2, w/2): after the first block, and after the last."""
        halved = self.down(x)
        return torch.cat([halved, self.blocks(halved)], dim=1)


class PyramidOfImages(PyramidEncoder):
    """A convolution at stride 2 and two stages; the image itself is injected before each stage."""

    def __init__(self, config: ESPNetConfig):
        super().__init__()
        first, second, third = config.widths
        image = config.in_channels
        self.image_in_skip = config.image_in_skip
        self.stem = ConvPReLU(image, first, stride=2)
        widths = (first + image, 2 * second + image, 2 * third)
        self.norms = nn.ModuleList(NormPReLU(width) for width in widths)
        self.levels = nn.ModuleList(
            PyramidStage(given, width, blocks)
            for given, width, blocks in zip(widths[:2], (second, third), config.blocks, strict=True)
        )
        self.channels = (first + image * config.image_in_skip, *widths[1:])
        self.strides = (2, 4, 8)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to maps at strides 2, 4, 8."""
        halved = F.avg_pool2d(x, 3, stride=2, padding=1)
        quartered = F.avg_pool2d(halved, 3, stride=2, padding=1)
        fine = self.run_stage(self.stem, x)
        with_image = self.norms[0](torch.cat([fine, halved], dim=1))
        first, last = self.run_stage(self.levels[0], with_image).chunk(2, dim=1)
        middle = self.norms[1](torch.cat([last, first, quartered], dim=1))
        deep = self.norms[2](self.run_stage(self.levels[1], middle))
        return [with_image if self.image_in_skip else fine, middle, deep]

    def stages(self) -> list[list[nn.Module]]:
        """Return the first convolution and both stages, each with the norm after it."""
        return [[part, norm] for part, norm in zip((self.stem, *self.levels), self.norms, strict=True)]


class ESPNetC(nn.Module):
    """Encoder and 1x1 classifier: logits at stride 8."""

    def __init__(self, config: ESPNetConfig):
        super().__init__()
        self.bgr, self.num_classes = config.bgr, config.num_classes
        self.resample = Resample(align_corners=config.align_corners)
        self.encoder = PyramidOfImages(config)
        self.classifier = nn.Conv2d(self.encoder.channels[-1], config.outputs, kernel_size=1, bias=False)
        init_weights(self)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Return the encoder's last map, which is classified as it is: (N, 2 E3, H/8, W/8)."""
        return features[-1]

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H/8, W/8)."""
        x = image_of(inputs)
        outputs = self.classifier(self.decode(self.encoder(x.flip(1) if self.bgr else x)))
        return SemanticLogits(outputs[:, : self.num_classes], (x.shape[-2], x.shape[-1]), self.resample)


def double(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    """Return a transposed convolution without bias to twice the size, each value alone."""
    return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)


class ESPNet(nn.Module):
    """Encoder, a decoder that joins its maps at strides 4 and 2, a transposed convolution: logits at stride 1."""

    def __init__(self, config: ESPNetConfig):
        super().__init__()
        self.bgr, self.num_classes = config.bgr, config.num_classes
        self.encoder = PyramidOfImages(config)
        fine, middle, deep = self.encoder.channels
        width = config.decoder_channels
        self.deep = nn.Sequential(nn.Conv2d(deep, width, 1, bias=False), BatchNorm2d(width, eps=EPS))
        self.deep.append(double(width, width))
        self.middle = nn.Conv2d(middle, width, 1, bias=False)
        self.join = nn.Sequential(NormPReLU(2 * width), SpatialPyramid(2 * width, width))
        self.up = nn.Sequential(double(width, width), NormPReLU(width))
        self.conv = ConvPReLU(width + fine, width)
        self.classifier = double(width, config.outputs)
        init_weights(self)

    def names_of_first_stage(self, config: Mapping[str, Any]) -> dict[str, str] | None:
        """Return which tensors of an ESPNet-C have other names here, given its config; None of any other network.

        The paper trains that first: its classifier then is the decoder's first convolution.
        """
        return {"classifier.weight": "deep.0.weight"} if config.get("decoder") is False else None

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, D, H/2, W/2)."""
        fine, middle, deep = features
        joined = self.join(torch.cat([self.middle(middle), self.deep(deep)], dim=1))
        out: Tensor = self.conv(torch.cat([self.up(joined), fine], dim=1))
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H', W'), the next multiples of 8."""
        x = pad_to_multiple(image_of(inputs), self.encoder.strides[-1])
        outputs = self.classifier(self.decode(self.encoder(x.flip(1) if self.bgr else x)))
        return SemanticLogits(outputs[:, : self.num_classes], (x.shape[-2], x.shape[-1]))


def build(config: ESPNetConfig) -> ESPNet | ESPNetC:
    """Return the network: with a decoder, or an ESPNet-C."""
    return ESPNet(config) if config.decoder else ESPNetC(config)


ARCHITECTURE = Architecture(
    name="espnet",
    title="ESPNet",
    paper="https://arxiv.org/abs/1803.06815",
    tasks=("semantic",),
    output=SemanticLogits,
    config=ESPNetConfig,
    build=build,
    variants={
        f"{name}_q{q}": {"blocks": (2, q), "decoder": decoder}
        for name, decoder in (("espnet", True), ("espnet_c", False))
        for q in (3, 5, 8)
    },
    tiny={"widths": (8, 12, 16), "blocks": (1, 1)},
)
