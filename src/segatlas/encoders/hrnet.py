"""HRNet: high-resolution networks, which keep the finest map all the way through.

Papers: Sun et al. 2019, "High-Resolution Representations for Labeling Pixels and Regions",
https://arxiv.org/abs/1904.04514; Wang et al. 2020, https://arxiv.org/abs/1908.07919.

Idea: instead of shrinking the image and upsampling it again, branches at strides 4, 8, 16 and 32 run in parallel, each
stage with one more, and after every few blocks each branch receives the sum of all the others.

Letters: N batch, C image channels, H W image, W channels of the finest branch (doubled in each coarser one).

Forms: `hrnet_w18`, `hrnet_w48` and so on by W; `hrnet_w18_small` has half the blocks and fewer modules (it is what the
authors call HRNet-W18-Small-v2). Parameter names are the authors' own, which timm and MMSegmentation have too.

How ours differs: nothing in the numbers, which are MMSegmentation's. Where a map's size is not a multiple of 32, a
coarser branch is upsampled by its whole factor and then resampled to the size of the finer one, as there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.family import EncoderFamily, EncoderSettings
from segatlas.encoders.resnet import BasicBlock, Bottleneck, residual_layer
from segatlas.layers.init import init_weights
from segatlas.ops.capture import may_differ

STEM_WIDTH = 64


class ExchangeModule(nn.Module):
    """Residual blocks in every branch, then an exchange: each branch becomes the sum of all, brought to its form.

    Args:
        widths: channels of each branch, finest first.
        depth: residual blocks in a branch.
    """

    def __init__(self, widths: tuple[int, ...], depth: int):
        super().__init__()
        self.branches = nn.ModuleList(blocks(BasicBlock, width, width, depth) for width in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(connection(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Map one (N, width, h, w) a branch to the same shapes."""
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused = []
        for target, connections in enumerate(self.fuse_layers.children()):
            size = (maps[target].shape[-2], maps[target].shape[-1])
            parts = [connect(x) for connect, x in zip(connections.children(), maps, strict=True)]
            parts = [upsample_to(x, 2 ** max(source - target, 0), size) for source, x in enumerate(parts)]
            fused.append(F.relu(sum_of(parts), inplace=True))
        return fused


def connection(widths: tuple[int, ...], source: int, target: int) -> nn.Module:
    """Return what brings a branch's channels to another's, and its size down to it; up is left to `upsample_to`."""
    if source == target:
        return nn.Identity()
    if source > target:
        return conv_bn(widths[source], widths[target], kernel_size=1)
    halvings = [
        nn.Sequential(*conv_bn(widths[source], widths[source], stride=2), nn.ReLU(inplace=True))
        for _ in range(source + 1, target)
    ]
    return nn.Sequential(*halvings, conv_bn(widths[source], widths[target], stride=2))


def upsample_to(x: Tensor, factor: int, size: tuple[int, int]) -> Tensor:
    """Upsample (N, C, h, w) by a whole factor, then to (N, C, *size) where that is not yet its size."""
    if factor > 1:
        x = F.interpolate(x, size=(x.shape[-2] * factor, x.shape[-1] * factor), mode="bilinear", align_corners=False)
    if not may_differ(x.shape[-2:], size):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def sum_of(maps: list[Tensor]) -> Tensor:
    """Return the sum of at least two maps of one shape, as a new tensor."""
    total = maps[0] + maps[1]
    for x in maps[2:]:
        total = total + x
    return total


class Transition(nn.ModuleList):
    """Starts the branches of a stage from those of the stage before: adapts their channels and opens a coarser one."""

    def __init__(self, before: tuple[int, ...], after: tuple[int, ...]):
        kept = [
            nn.Identity() if old == new else nn.Sequential(*conv_bn(old, new), nn.ReLU(inplace=True))
            for old, new in zip(before, after, strict=False)
        ]
        opened = nn.Sequential(*conv_bn(before[-1], after[-1], stride=2), nn.ReLU(inplace=True))
        super().__init__([*kept, nn.Sequential(opened)])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Map the branches' maps to those of the next stage, one more than before."""
        return [layer(x) for layer, x in zip(self, [*maps, maps[-1]], strict=True)]


class HRNet(PyramidEncoder):
    """An HRNet without its classifier: four maps, at strides 4, 8, 16 and 32.

    Args:
        width: channels of the finest branch.
        depth: residual blocks in a branch of a module, and bottlenecks of the first layer.
        modules: modules of stages 2, 3 and 4.
        in_channels: channels of the image.
    """

    strides = (4, 8, 16, 32)

    def __init__(self, width: int, *, depth: int, modules: tuple[int, int, int], in_channels: int = 3):
        super().__init__()
        self.channels = tuple(width * 2**branch for branch in range(4))
        self.conv1 = nn.Conv2d(in_channels, STEM_WIDTH, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_WIDTH)
        self.conv2 = nn.Conv2d(STEM_WIDTH, STEM_WIDTH, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(STEM_WIDTH)
        self.layer1 = blocks(Bottleneck, STEM_WIDTH, STEM_WIDTH, depth)
        before: tuple[int, ...] = (STEM_WIDTH * Bottleneck.expansion,)
        for stage, count in zip((2, 3, 4), modules, strict=True):
            widths = self.channels[:stage]
            setattr(self, f"transition{stage - 1}", Transition(before, widths))
            setattr(self, f"stage{stage}", nn.ModuleList(ExchangeModule(widths, depth) for _ in range(count)))
            before = widths
        init_weights(self)

    def stem(self, x: Tensor) -> Tensor:
        """Map an image (N, C, H, W) to (N, 64, H/4, W/4)."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)), inplace=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to four maps of W, 2W, 4W and 8W channels."""
        x = self.run_stage(self.stem, x)
        maps = [self.run_stage(self.layer1, x)]  # stride 4
        for stage in (2, 3, 4):  # strides 4, 8; then 16; then 32
            maps = self.run_stage(self.get_submodule(f"transition{stage - 1}"), maps)
            for module in self._modules_of(stage):
                maps = self.run_stage(module, maps)
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Return stem, first layer, and the three stages, each with the transition to it."""
        later = [[self.get_submodule(f"transition{i - 1}"), self.get_submodule(f"stage{i}")] for i in (2, 3, 4)]
        return [[self.conv1, self.bn1, self.conv2, self.bn2], [self.layer1], *later]

    def _modules_of(self, stage: int) -> Iterable[nn.Module]:
        return self.get_submodule(f"stage{stage}").children()


def blocks(block: type[BasicBlock] | type[Bottleneck], in_channels: int, width: int, depth: int) -> nn.Sequential:
    """Return residual blocks that neither stride nor dilate."""
    dilations = [(1, 1)] * depth
    return residual_layer(block, in_channels, width, stride=1, dilations=dilations, average_shortcut=False)


def conv_bn(in_channels: int, out_channels: int, *, kernel_size: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution without bias and its batch norm."""
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels))


class Form(NamedTuple):
    """What stands behind an HRNet's name besides its width."""

    depth: int
    modules: tuple[int, int, int]


FULL, SMALL = Form(4, (1, 4, 3)), Form(2, (1, 3, 2))


def build(spec: EncoderSettings, in_channels: int) -> HRNet:
    """Make an HRNet by name: hrnet_w18, hrnet_w18_small, ..."""
    match = re.fullmatch(r"hrnet_w(\d+)(_small)?", spec.name)
    assert match, spec.name
    form = SMALL if match[2] else FULL
    return HRNet(int(match[1]), depth=form.depth, modules=form.modules, in_channels=in_channels)


FAMILY = EncoderFamily(build=build)
