"""PoolFormer: a pyramid of transformer blocks whose attention is an average of three by three pixels.

Paper: Yu et al. 2022, "MetaFormer Is Actually What You Need for Vision", https://arxiv.org/abs/2111.11418.

Idea: what makes a transformer good is its frame (a norm, something that mixes tokens, a norm, a feed-forward part, each
added to its input), and not attention: the plainest mixer, an average of neighbours less the token itself, will do.

Letters: N batch, C image channels, H W image, h w map of a stage, D its channels.

How ours differs: nothing in the numbers. The norms are over a whole map (group norm of one group), so they are no layer
norms of tokens. Each map that is given out has a norm of its own. Parameter names are
MMPretrain's, but for the stages: `layers.{i}`, each with its `downsample` and `blocks`.

Any image size, as there: nothing is padded but images below three pixels, so that of a side that is no multiple of four
the first convolution may leave out the last pixels, and the maps stand for the whole side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.family import EncoderFamily, EncoderSettings, PyramidOptions
from segatlas.layers.drop_path import DropPath
from segatlas.layers.init import init_weights
from segatlas.layers.linear import PointwiseConv2d
from segatlas.layers.padding import pad_to_least

STRIDES = (4, 8, 16, 32)
MLP_RATIO = 4
EPS = 1e-5
SMALLEST = 3
"""Pixels a side that the first convolution needs; smaller images are padded to it."""


@dataclass(frozen=True, kw_only=True)
class PoolFormerSize:
    """Channels and blocks of the four stages, and what the scales of channels begin with."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    scale: float = 1e-5


SIZES: dict[str, PoolFormerSize] = {
    "poolformer_w8": PoolFormerSize(widths=(8, 16, 24, 32), depths=(1, 1, 1, 1)),
    "poolformer_s12": PoolFormerSize(widths=(64, 128, 320, 512), depths=(2, 2, 6, 2)),
    "poolformer_s24": PoolFormerSize(widths=(64, 128, 320, 512), depths=(4, 4, 12, 4)),
    "poolformer_s36": PoolFormerSize(widths=(64, 128, 320, 512), depths=(6, 6, 18, 6), scale=1e-6),
    "poolformer_m36": PoolFormerSize(widths=(96, 192, 384, 768), depths=(6, 6, 18, 6), scale=1e-6),
    "poolformer_m48": PoolFormerSize(widths=(96, 192, 384, 768), depths=(8, 8, 24, 8), scale=1e-6),
}


class FeedForward(nn.Module):
    """The feed-forward part: widen, GELU, narrow; both are 1x1 convolutions."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = PointwiseConv2d(width, MLP_RATIO * width, 1)
        self.act = nn.GELU()
        self.fc2 = PointwiseConv2d(MLP_RATIO * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, h, w) to the same shape."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class Block(nn.Module):
    """Mixing and feed-forward part, each behind a norm, scaled by channel and added to its input."""

    def __init__(self, width: int, *, drop_path: float, scale: float):
        super().__init__()
        self.norm1 = nn.GroupNorm(1, width, eps=EPS)
        self.norm2 = nn.GroupNorm(1, width, eps=EPS)
        self.mlp = FeedForward(width)
        self.layer_scale_1 = nn.Parameter(torch.full((width,), scale))
        self.layer_scale_2 = nn.Parameter(torch.full((width,), scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, h, w) to the same shape."""
        x = x + self.drop_path(self.layer_scale_1[:, None, None] * around(self.norm1(x)))
        out: Tensor = x + self.drop_path(self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x)))
        return out


def around(x: Tensor) -> Tensor:
    """Return the average of the 3x3 pixels around each, those outside of the map not counted, less the pixel."""
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False) - x


class Stage(nn.Module):
    """A strided convolution, where there is one, then blocks."""

    def __init__(self, downsample: nn.Module | None, blocks: list[Block]):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to the map of this stage."""
        if self.downsample is not None:
            x = self.downsample(x)
        out: Tensor = self.blocks(x)
        return out


class PoolFormer(PyramidEncoder):
    """A 7x7 convolution of stride 4, `stem`, then stages at strides 4, 8, 16, 32, and `norm{i}` for each map given out.

    Args:
        size: widths and depths.
        in_channels: channels of the image.
        drop_path: stochastic depth of the last block; it rises linearly from 0 at the first.
        levels: see `PyramidOptions`.
    """

    def __init__(
        self, size: PoolFormerSize, *, in_channels: int = 3, drop_path: float = 0.0, levels: int | None = None
    ):
        super().__init__()
        count = len(STRIDES) if levels is None else levels - 1
        self.channels, self.strides = size.widths[:count], STRIDES[:count]
        rates = iter(torch.linspace(0, drop_path, sum(size.depths), device="cpu").tolist())
        self.stem = nn.Conv2d(in_channels, size.widths[0], 7, stride=4, padding=2)
        self.layers = nn.ModuleList()
        for index, (width, depth) in enumerate(zip(self.channels, size.depths, strict=False)):
            before = self.channels[index - 1]
            downsample = nn.Conv2d(before, width, 3, stride=2, padding=1) if index else None
            block = partial(Block, width, scale=size.scale)
            self.layers.append(Stage(downsample, [block(drop_path=next(rates)) for _ in range(depth)]))
            self.add_module(f"norm{index}", nn.GroupNorm(1, width, eps=EPS))
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to a map (N, D, h, w) of each stage, channels-last in memory."""
        x = self.stem(pad_to_least(x, SMALLEST).contiguous(memory_format=torch.channels_last))
        maps = []
        for index, stage in enumerate(self.layers):
            x = self.run_stage(stage, x)
            maps.append(self.get_submodule(f"norm{index}")(x))
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Return the stages with their norms; the first convolution goes with the first."""
        stages: list[list[nn.Module]] = [
            [stage, self.get_submodule(f"norm{index}")] for index, stage in enumerate(self.layers)
        ]
        stages[0].insert(0, self.stem)
        return stages


@dataclass(frozen=True, kw_only=True)
class PoolFormerOptions(PyramidOptions):
    """Options of a PoolFormer, besides those of `PyramidOptions`.

    drop_path: stochastic depth of the last block while training; earlier blocks have less, the first none.
    """

    drop_path: float = 0.0


def build(spec: EncoderSettings, in_channels: int) -> PoolFormer:
    """Make a PoolFormer by name, see `SIZES`."""
    options = spec.options
    return PoolFormer(SIZES[spec.name], in_channels=in_channels, drop_path=options.drop_path, levels=options.levels)


FAMILY = EncoderFamily(options=PoolFormerOptions, build=build)
