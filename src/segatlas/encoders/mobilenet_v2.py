"""MobileNetV2: a small network of inverted residual blocks.

Paper: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", https://arxiv.org/abs/1801.04381.

Idea: keep the map between blocks thin, widen it inside a block where only cheap depthwise convolutions work on it, and
put no activation on the thin map.

Letters: N batch, C image channels, H W image.

Forms: `mobilenet_v2` ends with the 1x1 convolution to 1280 channels, `mobilenet_v2_320` before it, as MMSegmentation's
does. Parameter names are those of torchvision (`features.0` to `features.18`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from segatlas.encoders.contract import SequentialEncoder
from segatlas.encoders.family import MOST_LEVELS, EncoderFamily, EncoderSettings, PyramidOptions
from segatlas.layers.init import init_weights

# One row per group of blocks: widening, output channels, blocks, stride of the first block (table 2 of the paper).
GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# The maps given out are those before each stride, at strides 2, 4, 8, 16, and the last: where in `features` each ends.
ENDS = (2, 4, 7, 14)


def conv_bn_relu6(
    in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return a convolution with batch norm and ReLU6."""
    padding = kernel_size // 2 * dilation
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """Widen (1x1), filter each channel (3x3), narrow (1x1) without activation; add the input where shapes allow."""

    def __init__(self, in_channels: int, out_channels: int, *, widening: int, stride: int, dilation: int = 1):
        super().__init__()
        wide = in_channels * widening
        widen = [conv_bn_relu6(in_channels, wide, kernel_size=1)] if widening > 1 else []
        self.conv = nn.Sequential(
            *widen,
            conv_bn_relu6(wide, wide, kernel_size=3, stride=stride, dilation=dilation, groups=wide),
            nn.Conv2d(wide, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, out_channels, h / stride, w / stride)."""
        out: Tensor = x + self.conv(x) if self.residual else self.conv(x)
        return out


@dataclass(frozen=True, kw_only=True)
class MobileNetV2Options(PyramidOptions):
    """Options of a MobileNetV2, besides those of `PyramidOptions`.

    dilate_every_block: where strides become dilation, all blocks dilate (as segmentation-models-pytorch has it), not
        only the first block of each group (as MMSegmentation has it).
    """

    dilate_every_block: bool = False


class MobileNetV2(SequentialEncoder):
    """MobileNetV2 without its classifier: five maps of 16, 24, 32, 96 and 1280 (or 320) channels.

    Args:
        in_channels: channels of the image.
        last_convolution: end with the 1x1 convolution to 1280 channels, else with the map of 320.
        output_stride: 8, 16 or 32; below 32 the last one (16) or two (8) strides become dilation.
        dilate_every_block, levels: see `MobileNetV2Options`.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        last_convolution: bool = True,
        output_stride: int = 32,
        dilate_every_block: bool = False,
        levels: int | None = None,
    ):
        super().__init__()
        levels = levels or MOST_LEVELS
        self.channels = (16, 24, 32, 96, 1280 if last_convolution else 320)[:levels]
        self.strides = (2, 4, 8, min(16, output_stride), output_stride)[:levels]
        layers: list[nn.Module] = [conv_bn_relu6(in_channels, 32, kernel_size=3, stride=2)]
        width, reached, dilation = 32, 2, 1
        for widening, out_channels, depth, first_stride in GROUPS:
            if first_stride == 2 and reached == output_stride:
                first_stride, dilation = 1, dilation * 2
            reached *= first_stride
            for index in range(depth):
                first = index == 0
                layers.append(
                    InvertedResidual(
                        width,
                        out_channels,
                        widening=widening,
                        stride=first_stride if first else 1,
                        dilation=dilation if first or dilate_every_block else 1,
                    )
                )
                width = out_channels
        if last_convolution:
            layers.append(conv_bn_relu6(width, 1280, kernel_size=1))
        self.ends = (*ENDS, len(layers))[:levels]
        self.features = nn.Sequential(*layers[: self.ends[-1]])
        init_weights(self)


def build(spec: EncoderSettings, in_channels: int) -> MobileNetV2:
    """Make a MobileNetV2 by name: mobilenet_v2, mobilenet_v2_320 (without the convolution to 1280 channels)."""
    options: MobileNetV2Options = spec.options
    return MobileNetV2(
        in_channels=in_channels,
        last_convolution=spec.name == "mobilenet_v2",
        output_stride=spec.output_stride or 32,
        dilate_every_block=options.dilate_every_block,
        levels=options.levels,
    )


FAMILY = EncoderFamily(options=MobileNetV2Options, output_strides=(8, 16, 32), build=build)
