"""ResNet: deep residual networks, with the stems, shortcuts and dilations that segmentation papers use.

Paper: He et al. 2016, "Deep Residual Learning for Image Recognition", https://arxiv.org/abs/1512.03385; the c and d
forms are from He et al. 2019, "Bag of Tricks", https://arxiv.org/abs/1812.01187.

Idea: each block adds a correction to its input, so that very deep networks still train.

Letters: N batch, C image channels, H W image.

Forms: `resnet50` has one 7x7 convolution as stem; `resnet50c` three 3x3 ones; `resnet50d` those, and shortcuts that
average before they stride. `resnet18_w32` has half the channels everywhere (32 to 256), for little data and slow
machines. `resnext50_32x4d` (Xie et al. 2017, https://arxiv.org/abs/1611.05431) has the 3x3 convolution of its
bottlenecks in 32 groups, of 4 channels in the first layer. The stride of a bottleneck is in its 3x3 convolution
everywhere, unless `stride_first` says otherwise. Parameter names are those of torchvision, and timm's for the deep stem
(`conv1.0` to `conv1.6`, then `bn1`).
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.family import EncoderFamily, EncoderSettings, PyramidOptions
from segatlas.errors import UsageError
from segatlas.layers.init import init_weights

DILATIONS = {32: (1, 1, 1, 1), 16: (1, 1, 1, 2), 8: (1, 1, 2, 4)}
"""Output stride -> dilation of each layer that keeps the field of view."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(
        self, in_channels: int, width: int, *, stride: int, dilations: tuple[int, int], downsample: nn.Module | None
    ):
        super().__init__()
        first, second = dilations
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=first, dilation=first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=second, dilation=second, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, width, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        out: Tensor = self.relu(x + shortcut)
        return out


class Bottleneck(nn.Module):
    """1x1 to fewer channels, 3x3, 1x1 to four times as many, and a shortcut.

    groups, group_width: the 3x3 convolution has so many groups, each of `group_width` channels where `width` is 64; one
    group of 64 makes it a plain one. stride_first: the first 1x1 convolution strides, not the 3x3 one.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int,
        dilations: tuple[int, int],
        downsample: nn.Module | None,
        groups: int = 1,
        group_width: int = 64,
        stride_first: bool = False,
    ):
        super().__init__()
        dilation = dilations[0]
        inner = width * group_width // 64 * groups
        first, second = (stride, 1) if stride_first else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, inner, 1, stride=first, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(
            inner, inner, 3, stride=second, padding=dilation, dilation=dilation, groups=groups, bias=False
        )
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, 4 width, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        out: Tensor = self.relu(x + shortcut)
        return out


class Block(Protocol):
    """Makes a residual block of `expansion` times as many channels as its `width`."""

    expansion: int

    def __call__(
        self, in_channels: int, width: int, *, stride: int, dilations: tuple[int, int], downsample: nn.Module | None
    ) -> nn.Module:
        """Return the block; `dilations` are those of its first 3x3 convolution and of its second, if any."""
        ...


class GroupedBottleneck:
    """Makes the bottlenecks of a ResNeXt, or those of a ResNet that stride in their first convolution."""

    expansion = Bottleneck.expansion

    def __init__(self, groups: int, group_width: int, *, stride_first: bool = False):
        self.groups, self.group_width, self.stride_first = groups, group_width, stride_first

    def __call__(
        self, in_channels: int, width: int, *, stride: int, dilations: tuple[int, int], downsample: nn.Module | None
    ) -> Bottleneck:
        """Return the block."""
        return Bottleneck(
            in_channels,
            width,
            stride=stride,
            dilations=dilations,
            downsample=downsample,
            groups=self.groups,
            group_width=self.group_width,
            stride_first=self.stride_first,
        )


@dataclass(frozen=True, kw_only=True)
class ResNetOptions(PyramidOptions):
    """Options of a ResNet, besides those of `PyramidOptions`.

    dilations: of each layer; None = doubled wherever a layer dilates instead of striding, else 1.
    multi_grid: dilation of each block of the last layer (Chen et al. 2017, section 3.1); None = the same for all.
    contract_dilation: the first block of a layer that dilates has half its dilation: that of the layer before.
    basic_conv2_dilated: both convolutions of a basic block dilate, not only the first.
    stride_first: the first 1x1 convolution of a bottleneck strides, as in Caffe's networks, not the 3x3 one.
    norm_eps: what batch norms add to the variance.
    stem_width: channels of the stem; None = those of the first layer.
    width: channels of the first layer, doubled at each further one; None = what the name says, 64 without a word.
    """

    dilations: tuple[int, int, int, int] | None = None
    multi_grid: tuple[int, ...] | None = None
    contract_dilation: bool = True
    basic_conv2_dilated: bool = True
    stride_first: bool = False
    norm_eps: float = 1e-5
    stem_width: int | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width is not None and self.width < 2:
            raise UsageError(f"width = {self.width}: expected 2 or more")


class ResNet(PyramidEncoder):
    """A ResNet without its classifier.

    Args:
        block: the residual block.
        depths: blocks in each of the four layers.
        in_channels: channels of the image.
        deep_stem: three 3x3 convolutions instead of one 7x7.
        average_shortcut: where a shortcut strides, average 2x2 pixels first instead of dropping three of four.
        width: channels of the first layer, doubled at each further layer.
        output_stride: 8, 16 or 32; below 32 the last one (16) or two (8) layers dilate instead of striding.
        dilations, multi_grid, contract_dilation, basic_conv2_dilated, stride_first, norm_eps, stem_width, levels: see
            `ResNetOptions`.
    """

    def __init__(
        self,
        block: Block,
        depths: tuple[int, int, int, int],
        *,
        in_channels: int = 3,
        deep_stem: bool = False,
        average_shortcut: bool = False,
        width: int = 64,
        stem_width: int | None = None,
        output_stride: int = 32,
        dilations: tuple[int, int, int, int] | None = None,
        multi_grid: tuple[int, ...] | None = None,
        contract_dilation: bool = True,
        basic_conv2_dilated: bool = True,
        stride_first: bool = False,
        norm_eps: float = 1e-5,
        levels: int | None = None,
    ):
        super().__init__()
        if stride_first and block is not BasicBlock:
            groups, group_width = (block.groups, block.group_width) if isinstance(block, GroupedBottleneck) else (1, 64)
            block = GroupedBottleneck(groups, group_width, stride_first=True)
        stem = stem_width or width
        self.conv1 = (
            deep_stem_convolutions(in_channels, stem)
            if deep_stem
            else nn.Conv2d(in_channels, stem, 7, 2, 3, bias=False)
        )
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

        channels, strides = [stem], [2]
        in_width, stride = stem, 4
        layer_dilations = dilations or DILATIONS[output_stride]
        self.layers = len(depths) if levels is None else levels - 1
        for index, (depth, dilation) in enumerate(zip(depths[: self.layers], layer_dilations, strict=False)):
            layer_stride = 1 if index == 0 or stride == output_stride else 2
            of_blocks = [max(dilation // 2, 1) if contract_dilation else dilation] + [dilation] * (depth - 1)
            if multi_grid is not None and index == len(depths) - 1:
                of_blocks = block_dilations(multi_grid, depth)
            layer_width = width * 2**index
            layer = residual_layer(
                block,
                in_width,
                layer_width,
                stride=layer_stride,
                dilations=[(d, dilation if basic_conv2_dilated else 1) for d in of_blocks],
                average_shortcut=average_shortcut,
            )
            setattr(self, f"layer{index + 1}", layer)
            in_width, stride = layer_width * block.expansion, stride * layer_stride
            channels.append(in_width)
            strides.append(stride)
        self.channels, self.strides = tuple(channels), tuple(strides)
        init_weights(self)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = norm_eps

    def stem(self, x: Tensor) -> Tensor:
        """Map an image (N, C, H, W) to (N, width, H/2, W/2)."""
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        return out

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to its maps: after the stem, and after each layer."""
        x = self.run_stage(self.stem, x)
        features = [x]  # stride 2
        x = self.maxpool(x)
        for layer in self._layers():  # strides 4, 8, 16, 32
            x = self.run_stage(layer, x)
            features.append(x)
        return features

    def stages(self) -> list[list[nn.Module]]:
        """Return the stem and each layer."""
        return [[self.conv1, self.bn1], *([layer] for layer in self._layers())]

    def _layers(self) -> list[nn.Module]:
        return [self.get_submodule(f"layer{index + 1}") for index in range(self.layers)]


def deep_stem_convolutions(in_channels: int, width: int) -> nn.Sequential:
    """Return three 3x3 convolutions; the norm and ReLU after the last are the network's own `bn1` and `relu`."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width // 2, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width // 2),
        nn.ReLU(inplace=True),
        nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False),
        nn.BatchNorm2d(width // 2),
        nn.ReLU(inplace=True),
        nn.Conv2d(width // 2, width, 3, padding=1, bias=False),
    )


def block_dilations(multi_grid: tuple[int, ...], depth: int) -> list[int]:
    """Return the dilation of each of `depth` blocks; UsageError where `multi_grid` has another count."""
    if len(multi_grid) != depth:
        raise UsageError(f"multi_grid has {len(multi_grid)} entries, but the last layer has {depth} blocks")
    return list(multi_grid)


def residual_layer(
    block: Block,
    in_channels: int,
    width: int,
    *,
    stride: int,
    dilations: list[tuple[int, int]],
    average_shortcut: bool,
) -> nn.Sequential:
    """Return one block for each entry of `dilations`: of its first 3x3 convolution, and of a basic block's second."""
    out_channels = width * block.expansion
    shortcut = None
    if stride > 1 or in_channels != out_channels:
        shortcut = projection(in_channels, out_channels, stride=stride, average=average_shortcut)
    first, *others = dilations
    blocks = [block(in_channels, width, stride=stride, dilations=first, downsample=shortcut)]
    blocks += [block(out_channels, width, stride=1, dilations=pair, downsample=None) for pair in others]
    return nn.Sequential(*blocks)


def projection(in_channels: int, out_channels: int, *, stride: int, average: bool) -> nn.Sequential:
    """Return the shortcut of a block whose output has another shape than its input."""
    norm = nn.BatchNorm2d(out_channels)
    if not average:
        return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), norm)
    pool = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, nn.Conv2d(in_channels, out_channels, 1, bias=False), norm)


class Depth(NamedTuple):
    """What the number in a ResNet's name stands for."""

    block: Block
    depths: tuple[int, int, int, int]


DEPTHS: dict[str, Depth] = {
    "resnet18": Depth(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Depth(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Depth(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Depth(Bottleneck, (3, 4, 23, 3)),
    "resnet152": Depth(Bottleneck, (3, 8, 36, 3)),
}


def build(spec: EncoderSettings, in_channels: int) -> ResNet:
    """Make a ResNet by name: resnet50, resnet50c (deep stem), resnet50d (averaging shortcuts), resnet18_w32.

    Of a ResNeXt the name says groups and channels of each: resnext50_32x4d.
    """
    if spec.name.startswith("resnext"):
        depth, groups, group_width = (int(number) for number in re.findall(r"\d+", spec.name))
        return ResNet(
            GroupedBottleneck(groups, group_width),
            DEPTHS[f"resnet{depth}"].depths,
            in_channels=in_channels,
            output_stride=spec.output_stride or 32,
            **{**asdict(spec.options), "width": width_of(spec)},
        )
    family = spec.name.partition("_w")[0]
    block, depths = DEPTHS[family.rstrip("cd")]
    return ResNet(
        block,
        depths,
        in_channels=in_channels,
        deep_stem=family.endswith(("c", "d")),
        average_shortcut=family.endswith("d"),
        output_stride=spec.output_stride or 32,
        **{**asdict(spec.options), "width": width_of(spec)},
    )


def width_of(spec: EncoderSettings) -> int:
    """Return the channels of a ResNet's first layer: its option, what its name says, or 64."""
    said = re.search(r"_w(\d+)$", spec.name)
    return spec.options.width or int(said[1] if said else 64)


FAMILY = EncoderFamily(options=ResNetOptions, output_strides=tuple(sorted(DILATIONS)), build=build)
