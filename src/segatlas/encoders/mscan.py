"""MSCAN: the encoder of SegNeXt, a pyramid of convolutions whose results weigh the map they come from.

Paper: Guo et al. 2022, "SegNeXt: Rethinking Convolutional Attention Design for Semantic Segmentation",
https://arxiv.org/abs/2209.08575.

Idea: what attention does can be had from convolutions. Depthwise strips of 7, 11 and 21 pixels, across and then down,
see far in all directions for little; their sum, mixed over channels, multiplies the map, so each pixel is weighed by
what lies around it.

Letters: N batch, C image channels, H W image, h w map of a stage, D its channels.

How ours differs: nothing in the numbers. Maps stay channels-last, (N, D, h, w) in the order of (N, h, w, D), so that
the norm over channels at the end of a stage copies nothing. Parameter names are MMSegmentation's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.family import EncoderFamily, EncoderSettings, PyramidOptions
from segatlas.layers.drop_path import DropPath
from segatlas.layers.init import init_weights
from segatlas.layers.linear import PointwiseConv2d
from segatlas.layers.norm import BatchNorm2d, ChannelNorm

STRIDES = (4, 8, 16, 32)
MLP_RATIOS = (8, 8, 4, 4)
STRIPS = (7, 11, 21)
LAYER_SCALE = 0.01


@dataclass(frozen=True, kw_only=True)
class MSCANSize:
    """Channels and blocks of the four stages."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


SIZES: dict[str, MSCANSize] = {
    "mscan_w8": MSCANSize(widths=(8, 16, 24, 32), depths=(1, 1, 1, 1)),
    "mscan_t": MSCANSize(widths=(32, 64, 160, 256), depths=(3, 3, 5, 2)),
    "mscan_s": MSCANSize(widths=(64, 128, 320, 512), depths=(2, 2, 4, 2)),
    "mscan_b": MSCANSize(widths=(64, 128, 320, 512), depths=(3, 3, 12, 3)),
    "mscan_l": MSCANSize(widths=(64, 128, 320, 512), depths=(3, 5, 27, 3)),
}


class Stem(nn.Module):
    """Two 3x3 convolutions of stride 2, each with batch norm, GELU between them."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(in_channels, width // 2, 3, stride=2, padding=1),
            BatchNorm2d(width // 2),
            nn.GELU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (N, C, H, W) to (N, D, H/4, W/4)."""
        out: Tensor = self.proj(x)
        return out


class PatchEmbedding(nn.Module):
    """A 3x3 convolution of stride 2 with batch norm."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, 3, stride=2, padding=1)
        self.norm = BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, h, w) to (N, D, h/2, w/2)."""
        out: Tensor = self.norm(self.proj(x))
        return out


class StripConv2d(nn.Conv2d):
    """A depthwise convolution with a long, thin kernel; on a processor it is computed in float32 under bf16, too.

    In bf16 torch 2.15 does not come to an end there with kernels of 21 on maps of 32 and more.
    """

    def __init__(self, width: int, kernel_size: tuple[int, int]):
        padding = (kernel_size[0] // 2, kernel_size[1] // 2)
        super().__init__(width, width, kernel_size, padding=padding, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, width, h, w) to the same shape."""
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(x.float())
        return super().forward(x)


class SpatialGate(nn.Module):
    """Weighs a map by what lies around each pixel: 5x5, then the sum of strips of three lengths, mixed over channels.

    Parameters: `conv0` 5x5; `conv{i}_1` (1 x k) and `conv{i}_2` (k x 1) for strip i; `conv3` 1x1. All but the last are
    depthwise.
    """

    def __init__(self, width: int):
        super().__init__()
        depthwise = partial(nn.Conv2d, width, width, groups=width)
        self.conv0 = depthwise(kernel_size=5, padding=2)
        for index, length in enumerate(STRIPS):
            setattr(self, f"conv{index}_1", StripConv2d(width, (1, length)))
            setattr(self, f"conv{index}_2", StripConv2d(width, (length, 1)))
        self.conv3 = PointwiseConv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, h, w) to the same shape."""
        near: Tensor = self.conv0(x)
        total = near
        for index in range(len(STRIPS)):
            across = self.get_submodule(f"conv{index}_1")(near)
            total = total + self.get_submodule(f"conv{index}_2")(across)
        out: Tensor = self.conv3(total) * x
        return out


class Attention(nn.Module):
    """The gate between two 1x1 convolutions, added to its input."""

    def __init__(self, width: int):
        super().__init__()
        self.proj_1 = PointwiseConv2d(width, width, 1)
        self.activation = nn.GELU()
        self.spatial_gating_unit = SpatialGate(width)
        self.proj_2 = PointwiseConv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, h, w) to the same shape."""
        out: Tensor = self.proj_2(self.spatial_gating_unit(self.activation(self.proj_1(x)))) + x
        return out


class FeedForward(nn.Module):
    """The feed-forward part: widen, 3x3 depthwise convolution, GELU, narrow."""

    def __init__(self, width: int, ratio: int):
        super().__init__()
        hidden = ratio * width
        self.fc1 = PointwiseConv2d(width, hidden, 1)
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.GELU()
        self.fc2 = PointwiseConv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, h, w) to the same shape."""
        out: Tensor = self.fc2(self.act(self.dwconv(self.fc1(x))))
        return out


class Block(nn.Module):
    """Attention and feed-forward part, each behind batch norm, scaled by channel and added to its input."""

    def __init__(self, width: int, *, ratio: int, drop_path: float):
        super().__init__()
        self.norm1 = BatchNorm2d(width)
        self.attn = Attention(width)
        self.norm2 = BatchNorm2d(width)
        self.mlp = FeedForward(width, ratio)
        self.layer_scale_1 = nn.Parameter(torch.full((width,), LAYER_SCALE))
        self.layer_scale_2 = nn.Parameter(torch.full((width,), LAYER_SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, D, h, w) to the same shape."""
        x = x + self.drop_path(self.layer_scale_1[:, None, None] * self.attn(self.norm1(x)))
        out: Tensor = x + self.drop_path(self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x)))
        return out


class MSCAN(PyramidEncoder):
    """Four stages at strides 4, 8, 16, 32; stage i is `patch_embed{i}`, `block{i}` (a list) and `norm{i}`.

    Args:
        size: widths and depths.
        in_channels: channels of the image.
        drop_path: stochastic depth of the last block; it rises linearly from 0 at the first.
        levels: see `PyramidOptions`.
    """

    def __init__(self, size: MSCANSize, *, in_channels: int = 3, drop_path: float = 0.1, levels: int | None = None):
        super().__init__()
        count = len(STRIDES) if levels is None else levels - 1
        self.channels, self.strides = size.widths[:count], STRIDES[:count]
        rates = iter(torch.linspace(0, drop_path, sum(size.depths), device="cpu").tolist())
        for index, (width, depth) in enumerate(zip(self.channels, size.depths, strict=False)):
            before = self.channels[index - 1]
            embedding = PatchEmbedding(before, width) if index else Stem(in_channels, width)
            block = partial(Block, width, ratio=MLP_RATIOS[index])
            setattr(self, f"patch_embed{index + 1}", embedding)
            setattr(self, f"block{index + 1}", nn.ModuleList(block(drop_path=next(rates)) for _ in range(depth)))
            setattr(self, f"norm{index + 1}", ChannelNorm(width, eps=1e-5))
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to a map (N, D, h, w) of each stage, channels-last in memory."""
        x = x.contiguous(memory_format=torch.channels_last)
        features = []
        for stage in self.stages():
            x = self.run_stage(partial(run_in_turn, stage), x)
            features.append(x)
        return features

    def stages(self) -> list[list[nn.Module]]:
        """Return the stages: patch embedding, blocks, norm."""
        return [
            [
                self.get_submodule(f"patch_embed{i}"),
                *self.get_submodule(f"block{i}").children(),
                self.get_submodule(f"norm{i}"),
            ]
            for i in range(1, len(self.channels) + 1)
        ]


def run_in_turn(parts: list[nn.Module], x: Tensor) -> Tensor:
    """Map a map through the parts of a stage."""
    for part in parts:
        x = part(x)
    return x


@dataclass(frozen=True, kw_only=True)
class MSCANOptions(PyramidOptions):
    """Options of an MSCAN, besides those of `PyramidOptions`.

    drop_path: stochastic depth of the last block while training; earlier blocks have less, the first none.
    """

    drop_path: float = 0.1


def build(spec: EncoderSettings, in_channels: int) -> MSCAN:
    """Make an MSCAN by name, see `SIZES`."""
    options = spec.options
    return MSCAN(SIZES[spec.name], in_channels=in_channels, drop_path=options.drop_path, levels=options.levels)


FAMILY = EncoderFamily(options=MSCANOptions, build=build)
