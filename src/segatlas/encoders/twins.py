"""Twins: pyramids of transformer stages whose attention sees the whole map, or windows of it and the whole in turn.

Paper: Chu et al. 2021, "Twins: Revisiting the Design of Spatial Attention in Vision Transformers",
https://arxiv.org/abs/2104.13840.

Idea: positions are told by a depthwise convolution behind the first block of a stage, so any size works. PCPVT's
attention takes keys and values of a reduced map, as a Mix Transformer's does. SVT does so in every second block only;
the others attend within windows, and what one window sees the next block takes to all.

Letters: N batch, C image channels, H W image, h w map of a stage, D its channels, M attention heads, p side of a window
in tokens, W windows of a map, L = p p tokens of a window.

How ours differs: parameter names are timm's, the arithmetic is MMSegmentation's: every norm has epsilon 1e-5, the
stages of SVT end with one, and tokens of padding are left out of a window's attention where a map is padded in height
and in width; where in one of them only, they take part (the published weights are trained so). Any size works: image
and maps are padded right and bottom to whole patches. MMSegmentation drops paths twice while training, ours once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import PyramidEncoder
from segatlas.encoders.family import EncoderFamily, EncoderSettings, PyramidOptions
from segatlas.encoders.mit import EfficientAttention
from segatlas.encoders.swin import WindowLayout
from segatlas.errors import UsageError
from segatlas.layers.drop_path import DropPath
from segatlas.layers.init import init_weights
from segatlas.layers.linear import TokenLinear
from segatlas.layers.padding import pad_to_multiple

PATCH_SIZES = (4, 2, 2, 2)
STRIDES = (4, 8, 16, 32)
REDUCTIONS = (8, 4, 2, 1)


@dataclass(frozen=True, kw_only=True)
class TwinsSize:
    """Channels, blocks, heads and widening of the four stages. windows: every second block attends within windows."""

    widths: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]
    mlp_ratios: tuple[int, int, int, int] = (4, 4, 4, 4)
    windows: bool = True


_pcpvt = partial(TwinsSize, widths=(64, 128, 320, 512), heads=(1, 2, 5, 8), mlp_ratios=(8, 8, 4, 4), windows=False)

SIZES: dict[str, TwinsSize] = {
    "twins_pcpvt_w8": TwinsSize(widths=(8, 16, 32, 64), depths=(1, 1, 1, 1), heads=(1, 2, 2, 4), windows=False),
    "twins_pcpvt_small": _pcpvt(depths=(3, 4, 6, 3)),
    "twins_pcpvt_base": _pcpvt(depths=(3, 4, 18, 3)),
    "twins_pcpvt_large": _pcpvt(depths=(3, 8, 27, 3)),
    "twins_svt_w8": TwinsSize(widths=(8, 16, 32, 64), depths=(2, 1, 2, 1), heads=(1, 2, 2, 4)),
    "twins_svt_small": TwinsSize(widths=(64, 128, 256, 512), depths=(2, 2, 10, 4), heads=(2, 4, 8, 16)),
    "twins_svt_base": TwinsSize(widths=(96, 192, 384, 768), depths=(2, 2, 18, 2), heads=(3, 6, 12, 24)),
    "twins_svt_large": TwinsSize(widths=(128, 256, 512, 1024), depths=(2, 2, 18, 2), heads=(4, 8, 16, 32)),
}


class PatchEmbedding(nn.Module):
    """A token of each square of a map, by one matrix, then layer norm."""

    def __init__(self, in_channels: int, width: int, *, patch_size: int, eps: float):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, width, patch_size, patch_size)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, h, w, D)."""
        x = pad_to_multiple(x, self.patch_size).contiguous(memory_format=torch.channels_last)
        out: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return out


class TokenWindows(NamedTuple):
    """How the tokens of N maps lie in windows, and which take part: (N W, 1, 1, L)."""

    layout: WindowLayout
    seen: Tensor

    @classmethod
    def of(cls, shape: Sequence[int], window: int, device: torch.device) -> Self:
        """Lay out maps (N, h, w, ...).

        What a size would decide is worked out in vectors: a captured graph then holds for every size.
        """
        layout = WindowLayout.of(shape, window, 0, device)
        h, w = shape[1:3]
        is_token = layout.places > 0  # (N W L)
        place = torch.arange(window**2, device=device)
        last = [(-(-side // window) - 1) * window + c for side, c in ((h, place // window), (w, place % window))]
        both_padded = (last[0] >= h).any() & (last[1] >= w).any()
        return cls(layout, (is_token | ~both_padded).unflatten(0, (-1, window**2))[:, None, None])


class WindowAttention(nn.Module):
    """Attention within windows; tokens of padding are zeros, whose keys and values are the biases."""

    def __init__(self, width: int, *, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = TokenLinear(width, 3 * width)
        self.proj = TokenLinear(width, width)

    def forward(self, x: Tensor, windows: TokenWindows) -> Tensor:
        """Map (N, h, w, D) to the same shape."""
        width, tokens_of_window = x.shape[3], windows.seen.shape[3]
        tokens = F.pad(x.flatten(0, 2), (0, 0, 1, 0))  # (1 + N h w, D)
        qkv = self.qkv(F.embedding(windows.layout.places, tokens))  # (N W L, 3 D)
        q, k, v = qkv.reshape(-1, tokens_of_window, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=windows.seen)  # (N W, M, L, d)
        attended = attended.transpose(1, 2).flatten(2).flatten(0, 1)
        out: Tensor = self.proj(F.embedding(windows.layout.back, attended)).reshape(x.shape)
        return out


class FeedForward(nn.Module):
    """The feed-forward part: widen, GELU, narrow."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = TokenLinear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = TokenLinear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, h, w, D) to the same shape."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class Block(nn.Module):
    """One transformer block: attention and feed-forward part, each behind a norm and added to its input."""

    def __init__(self, width: int, attention: nn.Module, *, hidden: int, drop_path: float, eps: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = attention
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = FeedForward(width, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, *windows: TokenWindows) -> Tensor:
        """Map (N, h, w, D) to the same shape; a block that attends within windows takes their layout."""
        x = x + self.drop_path(self.attn(self.norm1(x), *windows))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out


class PositionEncoding(nn.Module):
    """A 3x3 depthwise convolution, added to its input: it tells where a token stands."""

    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(width, width, kernel_size=3, padding=1, groups=width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, h, w, D) to the same shape."""
        out: Tensor = self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) + x
        return out


class Twins(PyramidEncoder):
    """Stages at strides 4, 8, 16, 32: `patch_embeds.{i}`, `blocks.{i}`, `pos_block.{i}` behind the first block, a norm.

    Args:
        size: widths, depths, heads, kind of attention.
        in_channels: channels of the image.
        window: side of a window in tokens, where blocks attend within windows.
        drop_path: stochastic depth of the last block; it rises linearly from 0 at the first.
        stage_norms: the map of each stage is normed (`stage_norms.{i}`).
        norm_eps: epsilon of the norms.
        levels: see `PyramidOptions`.
    """

    def __init__(
        self,
        size: TwinsSize,
        *,
        in_channels: int = 3,
        window: int = 7,
        drop_path: float = 0.2,
        stage_norms: bool = False,
        norm_eps: float = 1e-5,
        levels: int | None = None,
    ):
        super().__init__()
        if window < 2:
            raise UsageError(f"window = {window}: expected 2 or more tokens")
        count = len(STRIDES) if levels is None else levels - 1
        self.window, self.channels, self.strides = window, size.widths[:count], STRIDES[:count]
        rates = iter(torch.linspace(0, drop_path, sum(size.depths), device="cpu").tolist())
        inputs = (in_channels, *size.widths[:-1])
        self.patch_embeds, self.blocks = nn.ModuleList(), nn.ModuleList()
        for index, width in enumerate(self.channels):
            embedding = PatchEmbedding(inputs[index], width, patch_size=PATCH_SIZES[index], eps=norm_eps)
            block = partial(Block, width, hidden=size.mlp_ratios[index] * width, eps=norm_eps)
            attentions = (attention(size, index, number, norm_eps) for number in range(size.depths[index]))
            self.patch_embeds.append(embedding)
            self.blocks.append(nn.ModuleList(block(one, drop_path=next(rates)) for one in attentions))
        self.pos_block = nn.ModuleList(PositionEncoding(width) for width in self.channels)
        norms = (nn.LayerNorm(width, eps=norm_eps) for width in self.channels)
        self.stage_norms = nn.ModuleList(norms) if stage_norms else None
        init_weights(self)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to a map (N, D, h, w) of each stage, channels-last in memory."""
        maps = []
        for index in range(len(self.channels)):
            x = self.run_stage(partial(self.stage, index), x)
            maps.append(x)
        return maps

    def stage(self, index: int, x: Tensor) -> Tensor:
        """Map the map before a stage (N, in_channels, H, W) to that of the stage (N, D, h, w)."""
        x = self.patch_embeds[index](x)
        blocks = list(self.blocks[index].children())
        in_windows = any(isinstance(block.attn, WindowAttention) for block in blocks)
        windows = [TokenWindows.of(x.shape, self.window, x.device)] if in_windows else []
        for number, block in enumerate(blocks):
            x = block(x, *(windows if isinstance(block.attn, WindowAttention) else ()))
            if number == 0:
                x = self.pos_block[index](x)
        if self.stage_norms is not None:
            x = self.stage_norms[index](x)
        return x.permute(0, 3, 1, 2)

    def stages(self) -> list[list[nn.Module]]:
        """Return the stages: patch embedding, blocks, position encoding, norm."""
        norms = self.stage_norms or [None] * len(self.channels)
        parts = zip(self.patch_embeds, self.blocks, self.pos_block, norms, strict=True)
        return [[part for part in stage if part is not None] for stage in parts]


def attention(size: TwinsSize, index: int, number: int, eps: float) -> nn.Module:
    """Make the attention of a block, given its stage and its number in that."""
    width, heads = size.widths[index], size.heads[index]
    if size.windows and number % 2 == 0:
        return WindowAttention(width, heads=heads)
    return EfficientAttention(width, heads=heads, reduction=REDUCTIONS[index], eps=eps)


@dataclass(frozen=True, kw_only=True)
class TwinsOptions(PyramidOptions):
    """Options of a Twins, besides those of `PyramidOptions`.

    window: side of a window in tokens (SVT).
    drop_path: stochastic depth of the last block while training; earlier blocks have less, the first none.
    stage_norms: the map of each stage is normed; None = of SVT.
    norm_eps: epsilon of the norms.
    """

    window: int = 7
    drop_path: float = 0.2
    stage_norms: bool | None = None
    norm_eps: float = 1e-5


def build(spec: EncoderSettings, in_channels: int) -> Twins:
    """Make a Twins by name, see `SIZES`."""
    size, options = SIZES[spec.name], spec.options
    return Twins(
        size,
        in_channels=in_channels,
        window=options.window,
        drop_path=options.drop_path,
        stage_norms=size.windows if options.stage_norms is None else options.stage_norms,
        norm_eps=options.norm_eps,
        levels=options.levels,
    )


FAMILY = EncoderFamily(options=TwinsOptions, build=build)
