"""ESPNetV2: the pyramid of dilations channel by channel, groups of 1x1 convolutions, and pooling at every step up.

Paper: Mehta et al. 2019, "ESPNetv2: A Light-weight, Power Efficient, and General Purpose Convolutional Neural Network",
https://arxiv.org/abs/1811.11431. The decoder is that of the authors' later repository (github.com/sacmehta/EdgeNets),
whose files are published; its pooling is described with DiCENet, https://arxiv.org/abs/1906.03516.

Idea: the four dilated convolutions of a block filter each channel alone, and 1x1 convolutions before and after work in
four groups, so that wide maps stay cheap. On the way up each map is looked at in five sizes, from twice to a tenth.

Letters: N batch, C image channels, K classes, H W image, h w any map, E widths, B base width of the decoder, P width of
the pooled maps.

How ours differs: nothing in the numbers. Where the authors' doubles a map, ours goes to the size of the encoder's,
which is the same in every image that theirs takes. Their networks for Cityscapes have one output more than classes, for
pixels without a label, that was never trained as right; here it is kept but never predicted (`ignored_output`).

Any image size: nothing is padded; maps round up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

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

GROUPS = 4
"""Of the 1x1 convolutions; as many as there are dilations in a block."""
WIDE, NARROW = (1, 2, 3, 4), (1, 1, 2, 3)
"""Dilations of a block: at stride 16 a larger one would see beyond most maps."""
SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)
"""In which sizes a map is looked at on the way up."""
FEWEST = 5
"""Cells in height and in width of such a size at least."""


@dataclass(frozen=True, kw_only=True)
class ESPNetV2Config:
    """Settings of an ESPNetV2.

    num_classes: classes, K.
    in_channels: channels of the image, C.
    widths: channels at strides 2, 4, 8 and 16, E: multiples of 16, each more than the one before.
    blocks: blocks at strides 8 and 16, after the one that leads there.
    channels: base width of the decoder, B: its maps have 4, 3 and 2 times as many channels.
    pool_channels: width of its pooled maps, P; None = half as many as the classifier's outputs, at most B.
    ignored_output: the classifier has one output more than classes, for pixels without a label, as the authors' have
        for Cityscapes; it is never predicted.
    align_corners: how maps and logits are upsampled.
    """

    num_classes: int
    in_channels: int = 3
    widths: tuple[int, int, int, int] = (32, 128, 256, 512)
    blocks: tuple[int, int] = (3, 7)
    channels: int = 16
    pool_channels: int | None = None
    ignored_output: bool = False
    align_corners: bool = True

    def __post_init__(self) -> None:
        """Refuse widths that do not grow in groups."""
        require_at_least(self, channels=1)
        if self.pool_channels is not None:
            require_at_least(self, pool_channels=1)
        if not all(below < above for below, above in pairwise((0, *self.widths))) or any(
            width % GROUPS**2 for width in self.widths
        ):
            found = f"widths: got {list(self.widths)}"
            raise UsageError(f"{found}, expected multiples of {GROUPS**2}, each more than the one before")

    @property
    def outputs(self) -> int:
        """Outputs of the classifier: classes, and one for pixels without a label."""
        return self.num_classes + self.ignored_output

    @property
    def pooled(self) -> int:
        """Width of the decoder's pooled maps, P."""
        return max(1, min(self.outputs // 2, self.channels)) if self.pool_channels is None else self.pool_channels


class NormPReLU(nn.Sequential):
    """Batch norm and a ReLU whose slope below zero is learned, channel by channel."""

    def __init__(self, channels: int):
        super().__init__(BatchNorm2d(channels), PReLU(channels))


def conv_of(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Return a convolution without bias that keeps the size but for its stride."""
    padding = kernel_size // 2 * dilation
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False)


class ConvPReLU(nn.Sequential):
    """A convolution without bias, batch norm, PReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1):
        conv = conv_of(in_channels, out_channels, kernel_size, stride=stride, groups=groups)
        super().__init__(conv, NormPReLU(out_channels))


class DepthwisePyramid(nn.Module):
    """Reduce in groups, filter each channel at four dilations, add up from fine to coarse, join in groups, batch norm.

    It has no activation at its end.
    """

    def __init__(self, in_channels: int, out_channels: int, dilations: tuple[int, ...], *, stride: int = 1):
        super().__init__()
        width = out_channels // len(dilations)
        self.reduce = ConvPReLU(in_channels, width, 1, groups=GROUPS)
        self.dilated = nn.ModuleList(
            conv_of(width, width, 3, stride=stride, dilation=dilation, groups=width) for dilation in dilations
        )
        self.norm = NormPReLU(out_channels)
        self.join = conv_of(out_channels, out_channels, 1, groups=GROUPS)
        self.bn = BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h / stride, w / stride)."""
        y = self.reduce(x)
        sums: list[Tensor] = []
        for conv in self.dilated:
            sums.append(conv(y) + sums[-1] if sums else conv(y))
        out: Tensor = self.bn(self.join(self.norm(torch.cat(sums, dim=1))))
        return out


class PyramidBlock(nn.Module):
    """A pyramid with a shortcut, PReLU."""

    def __init__(self, channels: int, dilations: tuple[int, ...]):
        super().__init__()
        self.pyramid = DepthwisePyramid(channels, channels, dilations)
        self.activation = PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, h, w) to the same shape."""
        out: Tensor = self.activation(self.pyramid(x) + x)
        return out


def halved(x: Tensor) -> Tensor:
    """Map (N, C, h, w) to averages (N, C, h/2, w/2), rounding up; zeros beyond the edge are counted."""
    return F.avg_pool2d(x, 3, stride=2, padding=1)


class PyramidDown(nn.Module):
    """To half the size: averages beside a strided pyramid, to which the image itself is added; PReLU."""

    def __init__(self, in_channels: int, out_channels: int, image_channels: int):
        super().__init__()
        self.pyramid = DepthwisePyramid(in_channels, out_channels - in_channels, WIDE, stride=2)
        self.image = nn.Sequential(
            ConvPReLU(image_channels, image_channels, 3),
            conv_of(image_channels, out_channels, 1),
            BatchNorm2d(out_channels),
        )
        self.activation = PReLU(out_channels)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """Map (N, in_channels, h, w), and an image of the new size, to (N, out_channels, h/2, w/2)."""
        joined = torch.cat([halved(x), self.pyramid(x)], dim=1)
        out: Tensor = self.activation(joined + self.image(image))
        return out


class ReinforcedEncoder(PyramidEncoder):
    """A convolution at stride 2, then three steps down to which the averaged image comes, blocks after the last two."""

    def __init__(self, config: ESPNetV2Config):
        super().__init__()
        first, second, third, fourth = config.widths
        image = config.in_channels
        self.stem = ConvPReLU(image, first, 3, stride=2)
        self.downs = nn.ModuleList(
            PyramidDown(given, width, image) for given, width in ((first, second), (second, third), (third, fourth))
        )
        self.levels = nn.ModuleList(
            nn.Sequential(*(PyramidBlock(width, dilations) for _ in range(count)))
            for width, dilations, count in zip(
                config.widths[1:], (WIDE, WIDE, NARROW), (0, *config.blocks), strict=True
            )
        )
        self.channels, self.strides = config.widths, (2, 4, 8, 16)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to maps at strides 2, 4, 8, 16."""
        maps, image = [self.run_stage(self.stem, x)], halved(x)
        for down, level in zip(self.downs, self.levels, strict=True):
            image = halved(image)
            maps.append(self.run_stage(level, down(maps[-1], image)))
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Return the first convolution, and each step down with its blocks."""
        return [[self.stem], *([down, level] for down, level in zip(self.downs, self.levels, strict=True))]


class PooledSizes(nn.Module):
    """A narrow map looked at in five sizes, each channel alone; the results are mixed and widened."""

    def __init__(self, in_channels: int, width: int, align_corners: bool):
        super().__init__()
        self.align_corners = align_corners
        self.reduce = ConvPReLU(in_channels, width, 1)
        self.filters = nn.ModuleList(conv_of(width, width, 3, groups=width) for _ in SCALES)
        self.norm = NormPReLU(width * len(SCALES))
        self.mix = ConvPReLU(width * len(SCALES), width, 3, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, width, h, w)."""
        x = self.reduce(x)
        size = (x.shape[-2], x.shape[-1])
        seen = []
        for scale, conv in zip(SCALES, self.filters, strict=True):
            scaled = (max(math.ceil(size[0] * scale), FEWEST), max(math.ceil(size[1] * scale), FEWEST))
            if scale > 1:
                seen.append(F.adaptive_avg_pool2d(conv(self._resized(x, scaled)), size))
            elif scale < 1:
                seen.append(self._resized(conv(F.adaptive_avg_pool2d(x, scaled)), size))
            else:
                seen.append(conv(x))
        joined = self.norm(torch.cat(seen, dim=1))
        sides = joined.unflatten(1, (len(SCALES), -1)).transpose(1, 2).flatten(1, 2)  # a channel's sizes together
        out: Tensor = self.mix(sides)
        return out

    def _resized(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=self.align_corners)


class GatedSkip(nn.Module):
    """A map of the encoder through a convolution in groups, its channels weighted by what the whole map shows."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.gate = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        self.conv = ConvPReLU(in_channels, out_channels, 3, groups=math.gcd(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h, w)."""
        weights = self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
        out: Tensor = self.conv(x) * weights
        return out


class StepUp(nn.Module):
    """A map looked at in five sizes and widened, upsampled and added to the encoder's finer one; batch norm, PReLU."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, config: ESPNetV2Config):
        super().__init__()
        self.align_corners = config.align_corners
        self.pool = PooledSizes(in_channels, config.pooled, config.align_corners)
        self.widen = nn.Sequential(conv_of(config.pooled, out_channels, 1), NormPReLU(out_channels))
        self.skip = GatedSkip(skip_channels, out_channels)
        self.norm = NormPReLU(out_channels)

    def forward(self, x: Tensor, finer: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) and a finer map (N, skip_channels, 2 h, 2 w) to (N, out_channels, 2 h, 2 w)."""
        x = self.widen(self.pool(x))
        x = F.interpolate(x, size=finer.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        out: Tensor = self.norm(self.skip(finer) + x)
        return out


class ESPNetV2(nn.Module):
    """Encoder, three steps up, a last look in five sizes, 1x1 classifier: logits at stride 2."""

    def __init__(self, config: ESPNetV2Config):
        super().__init__()
        self.num_classes = config.num_classes
        self.resample = Resample(align_corners=config.align_corners)
        self.encoder = ReinforcedEncoder(config)
        *skips, deep = config.widths
        widths = (deep, 4 * config.channels, 3 * config.channels, 2 * config.channels)
        self.steps = nn.ModuleList(
            StepUp(given, skip, width, config)
            for given, skip, width in zip(widths[:-1], reversed(skips), widths[1:], strict=True)
        )
        self.pool = PooledSizes(widths[-1], config.pooled, config.align_corners)
        self.classifier = nn.Conv2d(config.pooled, config.outputs, kernel_size=1)
        init_weights(self)

    def decode(self, features: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the map before the classifier: (N, P, H/2, W/2)."""
        *skips, x = features
        for step, finer in zip(self.steps, reversed(skips), strict=True):
            x = step(x, finer)
        out: Tensor = self.pool(x)
        return out

    def forward(self, inputs: Tensor | Inputs) -> SemanticLogits:
        """Map a normalised image (N, C, H, W) to logits (N, K, H/2, W/2)."""
        x = image_of(inputs)
        outputs = self.classifier(self.decode(self.encoder(x)))
        return SemanticLogits(outputs[:, : self.num_classes], (x.shape[-2], x.shape[-1]), self.resample)


def _widths(first: int, second: int) -> tuple[int, int, int, int]:
    return first, second, 2 * second, 4 * second


ARCHITECTURE = Architecture(
    name="espnetv2",
    title="ESPNetV2",
    paper="https://arxiv.org/abs/1811.11431",
    tasks=("semantic",),
    output=SemanticLogits,
    config=ESPNetV2Config,
    build=ESPNetV2,
    variants={
        "espnetv2_s05": {"widths": _widths(16, 32)},
        "espnetv2_s10": {"widths": _widths(32, 64)},
        "espnetv2_s15": {"widths": _widths(32, 96)},
        "espnetv2_s20": {"widths": _widths(32, 128)},
    },
    tiny={"widths": (16, 32, 48, 64), "blocks": (1, 1), "channels": 4},
    exports_dynamic=False,
    not_dynamic_because="how many cells its maps are pooled to follows from their size, and capture keeps the numbers",
)
