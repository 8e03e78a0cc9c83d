"""Swin Transformer: a pyramid of transformer stages whose attention stays within windows.

Paper: Liu et al. 2021, "Swin Transformer: Hierarchical Vision Transformer using Shifted WindowLayout",
https://arxiv.org/abs/2103.14030.

Idea: the map is cut into windows of a few tokens, and each token sees those of its own window only, so cost grows with
the image and not with its square. In every second block windows are moved by half of themselves, which lets neighbours
meet. Between stages four neighbouring tokens are merged into one.

Letters: N batch, C image channels, H W image, h w map of a stage, D its channels, M attention heads, p side of a window
in tokens, W windows of a map, L = p p tokens of a window.

How ours differs: parameter names are timm's, and so is what merging sees: the four tokens of a square column by column,
one after another, as the authors have it; MMSegmentation lays them out channel by channel. Any image size works: the
image is padded right and bottom to whole patches, maps with zeros to whole windows and squares, as the authors' network
for segmentation does. Each map that is given out has a norm of its own.
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
from segatlas.errors import UsageError
from segatlas.layers.drop_path import DropPath
from segatlas.layers.init import init_weights
from segatlas.layers.linear import TokenLinear
from segatlas.layers.padding import pad_to_multiple

PATCH_SIZE = 4
STRIDES = (4, 8, 16, 32)
MLP_RATIO = 4
APART = -100.0
"""Added to the product of two tokens that a moved window brought together from opposite borders."""


@dataclass(frozen=True, kw_only=True)
class SwinSize:
    """Channels of the first stage (each next one has twice as many), blocks and heads of the four stages."""

    width: int
    depths: tuple[int, int, int, int]
    heads: tuple[int, int, int, int]


SIZES: dict[str, SwinSize] = {
    "swin_w8": SwinSize(width=8, depths=(2, 1, 1, 1), heads=(1, 2, 2, 4)),
    "swin_tiny": SwinSize(width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24)),
    "swin_small": SwinSize(width=96, depths=(2, 2, 18, 2), heads=(3, 6, 12, 24)),
    "swin_base": SwinSize(width=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32)),
    "swin_large": SwinSize(width=192, depths=(2, 2, 18, 2), heads=(6, 12, 24, 48)),
}


class PatchEmbedding(nn.Module):
    """A token of each patch of 4x4 pixels, then layer norm."""

    def __init__(self, in_channels: int, width: int, *, eps: float):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, PATCH_SIZE, PATCH_SIZE)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (N, C, H, W) to (N, h, w, D)."""
        x = pad_to_multiple(x, PATCH_SIZE).contiguous(memory_format=torch.channels_last)
        out: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return out


class PatchMerging(nn.Module):
    """The four tokens of a square, column by column, become one of twice their width."""

    def __init__(self, width: int, *, eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(4 * width, eps=eps)
        self.reduction = TokenLinear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, h, w, D) to (N, h/2, w/2, 2 D), sides rounded up."""
        x = padded(x, 2)
        squares = torch.cat([x[:, y::2, z::2] for z in (0, 1) for y in (0, 1)], dim=3)
        out: Tensor = self.reduction(self.norm(squares))
        return out


class WindowLayout(NamedTuple):
    """How the tokens of N maps lie in windows: T of N h w tokens, row by row, and before them one of zeros.

    places: (N W L) row of the tokens that each place of each window takes; 0 outside of the map.
    back: (N h w) place of each token.
    mask: (N W, 1, L, L), added to the products of attention; None where no window holds tokens of opposite borders.
    """

    places: Tensor
    back: Tensor
    mask: Tensor | None

    @classmethod
    def of(cls, shape: Sequence[int], window: int, shift: int, device: torch.device) -> Self:
        """Lay out maps (N, h, w, ...) in windows that are moved by some tokens.

        Numbers are worked out one by one, in vectors: an axis of windows may have one of them, and which axes do would
        become part of a captured graph.
        """
        count, h, w = shape[:3]
        rows, columns = (-(-side // window) for side in (h, w))
        place = torch.arange(count * rows * columns * window**2, device=device)
        of_map, within = place // (rows * columns * window**2), place % window**2
        number = place // window**2 % (rows * columns)
        y = number // columns * window + within // window  # in the map that was moved up and to the left
        x = number % columns * window + within % window
        own_y, own_x = (y + shift) % (rows * window), (x + shift) % (columns * window)
        places = torch.where((own_y < h) & (own_x < w), (of_map * h + own_y) * w + own_x + 1, 0)

        token = torch.arange(count * h * w, device=device)
        y_there = (token // w % h - shift) % (rows * window)
        x_there = (token % w - shift) % (columns * window)
        number = (token // (h * w) * rows + y_there // window) * columns + x_there // window
        back = number * window**2 + y_there % window * window + x_there % window
        if not shift:
            return cls(places, back, None)
        part = 3 * region(y, rows * window, window, shift) + region(x, columns * window, window, shift)
        parts = part.unflatten(0, (-1, window**2))  # (N W, L)
        return cls(places, back, ((parts[:, :, None] != parts[:, None, :]) * APART)[:, None])


class WindowAttention(nn.Module):
    """Attention within windows, biased by how tokens stand to each other.

    `relative_position_bias_table` ((2p - 1)², M) has a row for each distance in rows and columns.
    """

    def __init__(self, width: int, *, heads: int, window: int):
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = TokenLinear(width, 3 * width)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.proj = TokenLinear(width, width)

    def forward(self, x: Tensor, windows: WindowLayout) -> Tensor:
        """Map (N, h, w, D) to the same shape."""
        width = x.shape[3]
        tokens = F.pad(x.flatten(0, 2), (0, 0, 1, 0))  # (1 + N h w, D)
        qkv = self.qkv(F.embedding(windows.places, tokens))  # (N W L, 3 D)
        q, k, v = qkv.reshape(-1, self.window**2, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.bias()[None] if windows.mask is None else self.bias() + windows.mask
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))  # (N W, M, L, d)
        attended = self.proj(attended.transpose(1, 2).flatten(2).flatten(0, 1))
        return F.embedding(windows.back, attended).reshape(x.shape)

    def bias(self) -> Tensor:
        """Return what is added to the products of queries and keys, (M, L, L)."""
        index = distances(self.window, self.relative_position_bias_table.device)
        by_head = self.relative_position_bias_table.t()  # (M, (2p - 1)²)
        return by_head[:, index.flatten()].unflatten(1, index.shape)


class FeedForward(nn.Module):
    """The feed-forward part: widen, GELU, narrow."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = TokenLinear(width, MLP_RATIO * width)
        self.act = nn.GELU()
        self.fc2 = TokenLinear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, h, w, D) to the same shape."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class Block(nn.Module):
    """One transformer block: attention in windows and feed-forward part, each behind a norm and added to its input.

    Args:
        width: channels, D.
        heads: of attention, M.
        window: side of a window, p.
        drop_path: stochastic depth.
        eps: epsilon of the norms.
    """

    def __init__(self, width: int, *, heads: int, window: int, drop_path: float, eps: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = WindowAttention(width, heads=heads, window=window)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = FeedForward(width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, windows: WindowLayout) -> Tensor:
        """Map (N, h, w, D) to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x), windows))
        out: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return out


class Stage(nn.Module):
    """Merging of the map before, where there is one, then blocks; windows of every second one are moved."""

    def __init__(self, downsample: PatchMerging | None, blocks: list[Block], *, window: int):
        super().__init__()
        self.window = window
        self.downsample = downsample
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, h, w, D) to the map of this stage."""
        if self.downsample is not None:
            x = self.downsample(x)
        shifts = (0, self.window // 2)[: len(self.blocks)]
        windows = [WindowLayout.of(x.shape, self.window, shift, x.device) for shift in shifts]
        for index, block in enumerate(self.blocks):
            x = block(x, windows[index % 2])
        return x


class SwinTransformer(PyramidEncoder):
    """Patch embedding, then stages at strides 4, 8, 16, 32: `layers.{i}`, and `norm{i}` for the map that is given out.

    Args:
        size: widths, depths and heads.
        in_channels: channels of the image.
        window: side of a window in tokens.
        drop_path: stochastic depth of the last block; it rises linearly from 0 at the first.
        norm_eps: epsilon of the norms.
        levels: see `PyramidOptions`.
    """

    def __init__(
        self,
        size: SwinSize,
        *,
        in_channels: int = 3,
        window: int = 7,
        drop_path: float = 0.3,
        norm_eps: float = 1e-5,
        levels: int | None = None,
    ):
        super().__init__()
        if window < 2:
            raise UsageError(f"window = {window}: expected 2 or more tokens")
        count = len(STRIDES) if levels is None else levels - 1
        self.window = window
        self.channels = tuple(size.width * 2**index for index in range(count))
        self.strides = STRIDES[:count]
        rates = iter(torch.linspace(0, drop_path, sum(size.depths), device="cpu").tolist())
        self.patch_embed = PatchEmbedding(in_channels, size.width, eps=norm_eps)
        self.layers = nn.ModuleList()
        for index, (width, depth) in enumerate(zip(self.channels, size.depths, strict=False)):
            block = partial(Block, width, heads=size.heads[index], window=window, eps=norm_eps)
            merging = PatchMerging(self.channels[index - 1], eps=norm_eps) if index else None
            self.layers.append(Stage(merging, [block(drop_path=next(rates)) for _ in range(depth)], window=window))
            self.add_module(f"norm{index}", nn.LayerNorm(width, eps=norm_eps))
        init_weights(self)
        for name, parameter in self.named_parameters():
            if name.endswith("relative_position_bias_table"):
                nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map an image (N, C, H, W) to a map (N, D, h, w) of each stage, channels-last in memory."""
        x = self.patch_embed(x)
        maps = []
        for index, layer in enumerate(self.layers):
            x = self.run_stage(layer, x)
            maps.append(self.get_submodule(f"norm{index}")(x).permute(0, 3, 1, 2))
        return maps

    def stages(self) -> list[list[nn.Module]]:
        """Return the stages with their norms; the patch embedding goes with the first."""
        stages: list[list[nn.Module]] = [
            [layer, self.get_submodule(f"norm{index}")] for index, layer in enumerate(self.layers)
        ]
        stages[0].insert(0, self.patch_embed)
        return stages


def padded(x: Tensor, multiple: int) -> Tensor:
    """Pad a map (N, h, w, D) with zeros, right and bottom, to multiples of tokens."""
    return pad_to_multiple(x.permute(0, 3, 1, 2), multiple).permute(0, 2, 3, 1)


def distances(window: int, device: torch.device) -> Tensor:
    """Return the row of a table of relative positions for each pair of query and key of a window, (L, L)."""
    place = torch.arange(window**2, device=device)
    apart_by = [c[:, None] - c[None, :] + window - 1 for c in (place // window, place % window)]  # (L, L) each
    return apart_by[0] * (2 * window - 1) + apart_by[1]


def region(place: Tensor, side: int, window: int, shift: int) -> Tensor:
    """Return which part of a side a place on the moved map is in: 0, in the last window 1, or 2 if moved into it."""
    return (place >= side - window).int() + (place >= side - shift).int()


@dataclass(frozen=True, kw_only=True)
class SwinOptions(PyramidOptions):
    """Options of a Swin Transformer, besides those of `PyramidOptions`.

    window: side of a window in tokens: 7, or 12 where the published weights are trained with 384x384 images.
    drop_path: stochastic depth of the last block while training; earlier blocks have less, the first none.
    norm_eps: epsilon of the norms.
    """

    window: int = 7
    drop_path: float = 0.3
    norm_eps: float = 1e-5


def build(spec: EncoderSettings, in_channels: int) -> SwinTransformer:
    """Make a Swin Transformer by name, see `SIZES`."""
    options = spec.options
    return SwinTransformer(
        SIZES[spec.name],
        in_channels=in_channels,
        window=options.window,
        drop_path=options.drop_path,
        norm_eps=options.norm_eps,
        levels=options.levels,
    )


FAMILY = EncoderFamily(options=SwinOptions, build=build)
