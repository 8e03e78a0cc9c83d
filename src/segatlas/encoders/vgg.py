"""VGG: plain 3x3 convolutions, five times halved by max pooling.

Paper: Simonyan and Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
https://arxiv.org/abs/1409.1556.

Idea: nothing but small convolutions, many of them.

Letters: N batch, C image channels, H W image.

Parameter names are torchvision's (`features.0` and on, pooling and ReLU counted); `vgg16_bn` has batch norm after each
convolution. The maps given out are those of segmentation-models-pytorch that decoders use: before the second pooling
and each further one, and after the last, strides 2 to 32. timm's, as `timm/vgg16_bn`, have one at stride 1 too.
"""

from __future__ import annotations

from torch import nn

from segatlas.encoders.contract import SequentialEncoder
from segatlas.encoders.family import MOST_LEVELS, EncoderFamily, EncoderSettings, PyramidOptions
from segatlas.layers.init import init_weights

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the convolutions before each pooling."""

DEPTHS: dict[str, tuple[int, ...]] = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
"""Convolutions before each pooling: configurations A, B, D and E of the paper's table 1."""


class VGG(SequentialEncoder):
    """VGG without its classifier.

    Args:
        depths: convolutions before each pooling.
        in_channels: channels of the image.
        norm: batch norm after each convolution.
        levels: see `PyramidOptions`.
    """

    def __init__(self, depths: tuple[int, ...], *, in_channels: int = 3, norm: bool = False, levels: int | None = None):
        super().__init__()
        levels = levels or MOST_LEVELS
        layers: list[nn.Module] = []
        ends: list[int] = []
        for width, depth in zip(WIDTHS, depths, strict=True):
            for _ in range(depth):
                layers.append(nn.Conv2d(in_channels, width, 3, padding=1))
                layers += [nn.BatchNorm2d(width)] if norm else []
                layers.append(nn.ReLU(inplace=True))
                in_channels = width
            ends.append(len(layers))
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        self.ends = (*ends[1:], len(layers))[:levels]
        self.features = nn.Sequential(*layers[: self.ends[-1]])
        self.channels = (*WIDTHS[1:], WIDTHS[-1])[:levels]
        self.strides = tuple(2 ** (level + 1) for level in range(levels))
        init_weights(self)


def build(spec: EncoderSettings, in_channels: int) -> VGG:
    """Make a VGG by name: vgg11, vgg13, vgg16, vgg19, and each with `_bn`."""
    size, _, norm = spec.name.partition("_")
    options: PyramidOptions = spec.options
    return VGG(DEPTHS[size], in_channels=in_channels, norm=bool(norm), levels=options.levels)


FAMILY = EncoderFamily(options=PyramidOptions, build=build)
