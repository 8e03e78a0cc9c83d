"""Plain vision transformers: ViT, DeiT, BEiT, MAE, DINOv2 and DINOv3, written here.

Papers: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", https://arxiv.org/abs/2010.11929; Touvron et al. 2021,
"Training data-efficient image transformers" (DeiT), https://arxiv.org/abs/2012.12877; Bao et al. 2022, "BEiT: BERT
Pre-Training of Image Transformers", https://arxiv.org/abs/2106.08254; He et al. 2022, "Masked
Autoencoders Are Scalable Vision Learners" (MAE), https://arxiv.org/abs/2111.06377; Oquab et al. 2023, "DINOv2",
https://arxiv.org/abs/2304.07193; Darcet et al. 2024, "Vision Transformers Need Registers",
https://arxiv.org/abs/2309.16588; Siméoni et al. 2025, "DINOv3", https://arxiv.org/abs/2508.10104.

Idea: cut the image into square patches, make each a token by one matrix, and let a stack of equal blocks (attention
between all tokens, then a feed-forward part for each) work on them. Every block keeps the grid of patches.

Letters: N batch, C image channels, H W image, p patch size, h w grid of patches (rounded up), P prefix tokens (class
token, then registers), L = P + h w tokens, D width, M attention heads, d = D / M.

How ours differs: parameter names are timm's, which DeiT, MAE and DINOv2 share for the most part. Any image size works:
the image is padded right and bottom to whole patches, and position embeddings are resized to the grid of each image.
A class token has a row in `pos_embed`, unless `class_position` says otherwise, registers have none.

What heads build on:

    encoder(image, at=(2, 5, -1), norm=True) -> Tokens      patches and prefix tokens after chosen blocks
    encoder.embed(image) -> x (N, L, D), positions          what goes into the first block
    block(x, positions, mask=None) -> x                     one of `encoder.blocks`; patches are the last h w tokens
    encoder.norm(x)                                         the final norm, an identity without one
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.encoders.contract import TokenEncoder, Tokens
from segatlas.encoders.family import EncoderFamily, EncoderSettings
from segatlas.errors import UsageError
from segatlas.layers.drop_path import DropPath
from segatlas.layers.init import init_weights
from segatlas.layers.linear import TokenLinear, token_linear
from segatlas.layers.padding import pad_to_multiple

ROTARY_BASE = 100.0
"""Longest period of DINOv3's rotary positions, over that of the shortest; coordinates run from -1 to 1."""


@dataclass(frozen=True, kw_only=True)
class VisionTransformerForm:
    """What a name says: sizes, and the defaults of its options.

    hidden: width of the feed-forward part; None = 4 D. gated: it is a SwiGLU. rotary: positions turn queries and keys
    (DINOv3), keys have no bias, and there are no position embeddings. Others: see `VisionTransformerOptions`.
    """

    width: int
    depth: int
    heads: int
    hidden: int | None = None
    gated: bool = False
    rotary: bool = False
    patch_size: int = 16
    image_size: tuple[int, int] = (224, 224)
    registers: int = 0
    layer_scale: float = 0.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.heads < 1:
            raise UsageError(f"heads: got {self.heads}, expected 1 or more")
        if self.width % self.heads or (self.rotary and self.width // self.heads % 4):
            raise UsageError(f"width: got {self.width}, expected a multiple of {self.heads} heads")


_PLAIN = {
    "vit_w32": VisionTransformerForm(width=32, depth=4, heads=2),
    "vit_tiny": VisionTransformerForm(width=192, depth=12, heads=3),
    "vit_small": VisionTransformerForm(width=384, depth=12, heads=6),
    "vit_base": VisionTransformerForm(width=768, depth=12, heads=12),
    "vit_large": VisionTransformerForm(width=1024, depth=24, heads=16),
    "vit_huge": VisionTransformerForm(width=1280, depth=32, heads=16, patch_size=14),
}

_dinov2 = partial(VisionTransformerForm, patch_size=14, image_size=(518, 518), layer_scale=1e-5)
_dinov3 = partial(VisionTransformerForm, rotary=True, registers=4, layer_scale=1e-5, norm_eps=1e-5)

FORMS: dict[str, VisionTransformerForm] = {
    **_PLAIN,
    "dinov2_small": _dinov2(width=384, depth=12, heads=6),
    "dinov2_base": _dinov2(width=768, depth=12, heads=12),
    "dinov2_large": _dinov2(width=1024, depth=24, heads=16),
    "dinov2_giant": _dinov2(width=1536, depth=40, heads=24, hidden=4096, gated=True),
    "dinov3_small": _dinov3(width=384, depth=12, heads=6),
    "dinov3_small_plus": _dinov3(width=384, depth=12, heads=6, gated=True),
    "dinov3_base": _dinov3(width=768, depth=12, heads=12),
    "dinov3_large": _dinov3(width=1024, depth=24, heads=16),
    "dinov3_huge_plus": _dinov3(width=1280, depth=32, heads=20, gated=True),
}


@dataclass(frozen=True, kw_only=True)
class VisionTransformerOptions:
    """Options of a plain vision transformer. None = that of the encoder's name.

    depth: how many of its blocks are made, from the first.
    hidden: width of the feed-forward part.
    drop_path: stochastic depth of the last block while training; it rises linearly from 0 at the first.
    dropout: fraction of numbers dropped after positions, attention and feed-forward layers while training.
    patch_size: height and width of a patch in pixels.
    image_size: height and width of the images that stored positions are for; those of others are resized.
    class_token: a class token stands before the patches.
    class_position: where there are position embeddings the class token has one, too; in DINOv2 with registers not.
    registers: further tokens between class token and patches, without positions.
    absolute_positions: position embeddings are added to the patches; None = unless positions are rotary.
    relative_positions: attention is biased by where patches stand to each other (BEiT, MAE's fine-tuning).
    position_resize: how stored positions are resized, bicubic or bilinear.
    position_antialias: smooth them where they are made smaller, as timm does; MMSegmentation does not.
    patch_bias: the matrix that makes tokens of patches has a bias.
    pre_norm: tokens are normed before the first block (CLIP).
    final_norm: tokens are normed after the last block.
    norm_last_only: tokens of earlier blocks, where they are asked for, are left without it (MMSegmentation).
    qkv_bias: queries, keys and values have biases.
    key_bias: keys have one, too, which BEiT's have not; None = unless positions are rotary.
    layer_scale: starting value of a factor for each channel behind attention and feed-forward part; 0 = no factors.
    norm_eps: epsilon of the norms.
    """

    depth: int | None = None
    hidden: int | None = None
    drop_path: float = 0.0
    dropout: float = 0.0
    patch_size: int | None = None
    image_size: tuple[int, int] | None = None
    class_token: bool = True
    class_position: bool = True
    registers: int | None = None
    absolute_positions: bool | None = None
    relative_positions: bool = False
    position_resize: Literal["bicubic", "bilinear"] = "bicubic"
    position_antialias: bool = True
    patch_bias: bool = True
    pre_norm: bool = False
    final_norm: bool = True
    norm_last_only: bool = False
    qkv_bias: bool = True
    key_bias: bool | None = None
    layer_scale: float | None = None
    norm_eps: float | None = None


class Positions(NamedTuple):
    """What attention is told of where its tokens stand.

    grid: (h, w), patches in height and width.
    rotation: cosines and sines (h w, d) that turn queries and keys of the patches; None without rotary positions.
    relation: (L, L) row of a block's table for each pair of query and key, the table being resized to the grid; None
        without relative positions.
    """

    grid: tuple[int, int]
    rotation: tuple[Tensor, Tensor] | None = None
    relation: Tensor | None = None


class RelativeBias(nn.Module):
    """A bias of attention by the distance of two patches, in rows and columns.

    `table` ((2h - 1) (2w - 1) + 3, M): rows for each distance on the stored grid, then for the class token as query, as
    key, and as both.
    """

    def __init__(self, heads: int, grid: tuple[int, int]):
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.zeros((2 * grid[0] - 1) * (2 * grid[1] - 1) + 3, heads))

    def forward(self, positions: Positions) -> Tensor:
        """Return the bias (M, L, L)."""
        assert positions.relation is not None
        rows, special = self.table[:-3], self.table[-3:]
        if torch.compiler.is_compiling() or positions.grid != self.grid:
            rows = resize_grid(rows[None], distances(self.grid), distances(positions.grid), mode="bilinear")[0]
        by_head = torch.cat([rows, special]).t()  # (M, distances + 3)
        return by_head[:, positions.relation.flatten()].unflatten(1, positions.relation.shape)


class Attention(nn.Module):
    """Self-attention between all tokens.

    Without biases of keys, `q_bias` and `v_bias` stand beside `qkv`. Such a bias shows only where positions turn keys.
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        qkv_bias: bool,
        key_bias: bool,
        dropout: float,
        grid: tuple[int, int] | None,
    ):
        super().__init__()
        self.heads = heads
        self.qkv = TokenLinear(width, 3 * width, bias=qkv_bias and key_bias)
        has_two = qkv_bias and not key_bias
        self.q_bias = nn.Parameter(torch.zeros(width)) if has_two else None
        self.v_bias = nn.Parameter(torch.zeros(width)) if has_two else None
        self.proj = TokenLinear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.relative = None if grid is None else RelativeBias(heads, grid)

    def forward(self, x: Tensor, positions: Positions, mask: Tensor | None = None) -> Tensor:
        """Map (N, L, D) to the same shape; mask: as of `Block`."""
        n, tokens, width = x.shape
        qkv = token_linear(x, self.qkv.weight, self.bias()).reshape(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (N, M, L, d) each
        if positions.rotation is not None:
            q, k = (rotated(x, *positions.rotation) for x in (q, k))
        if self.relative is not None:
            mask = joined(self.relative(positions)[None].to(q.dtype), mask)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.dropout(self.proj(x.transpose(1, 2).reshape(n, tokens, width)))
        return out

    def bias(self) -> Tensor | None:
        """Return the bias of queries, keys and values one after the other, (3 D)."""
        if self.q_bias is None or self.v_bias is None:
            return self.qkv.bias
        return torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])


class FeedForward(nn.Module):
    """The feed-forward part: widen, GELU, narrow."""

    def __init__(self, width: int, hidden: int, *, dropout: float):
        super().__init__()
        self.fc1 = TokenLinear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = TokenLinear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, L, D) to the same shape."""
        out: Tensor = self.dropout(self.fc2(self.dropout(self.act(self.fc1(x)))))
        return out


class GatedFeedForward(nn.Module):
    """The feed-forward part with a gate (SwiGLU, Shazeer 2020): `fc1` makes the gate, then what passes it."""

    def __init__(self, width: int, hidden: int, *, dropout: float):
        super().__init__()
        self.fc1 = TokenLinear(width, 2 * hidden)
        self.fc2 = TokenLinear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, L, D) to the same shape."""
        gate, x = self.fc1(x).chunk(2, dim=-1)
        out: Tensor = self.dropout(self.fc2(self.dropout(F.silu(gate) * x)))
        return out


class LayerScale(nn.Module):
    """A factor for each channel (Touvron et al. 2021, "Going deeper with Image Transformers")."""

    def __init__(self, width: int, start: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, L, D) to the same shape."""
        return x * self.gamma


class Block(nn.Module):
    """One transformer block: attention and feed-forward part, each behind a norm and added to its input."""

    def __init__(
        self,
        form: VisionTransformerForm,
        *,
        qkv_bias: bool,
        key_bias: bool = True,
        dropout: float,
        drop_path: float,
        grid: tuple[int, int] | None,
    ):
        super().__init__()
        width, eps, scale = form.width, form.norm_eps, form.layer_scale
        feed_forward = GatedFeedForward if form.gated else FeedForward
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads=form.heads, qkv_bias=qkv_bias, key_bias=key_bias, dropout=dropout, grid=grid)
        self.ls1 = LayerScale(width, scale) if scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = feed_forward(width, form.hidden or 4 * width, dropout=dropout)
        self.ls2 = LayerScale(width, scale) if scale else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, positions: Positions, mask: Tensor | None = None) -> Tensor:
        """Map (N, L, D) to the same shape.

        Args:
            x: tokens; the patches are the last h * w of them, whatever stands before.
            positions: of the image, from `VisionTransformer.embed`.
            mask: (N or 1, M or 1, L, L), which keys (last) a query may see, or numbers to add to the products.
        """
        x = x + self.drop_path(self.ls1(self.attn(self.norm1(x), positions, mask)))
        out: Tensor = x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))
        return out


class PatchEmbedding(nn.Module):
    """A token of each patch, by one matrix."""

    def __init__(self, in_channels: int, width: int, *, patch_size: int, bias: bool):
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, width, patch_size, patch_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (N, C, H, W) to a map (N, D, h, w)."""
        out: Tensor = self.proj(pad_to_multiple(x, self.patch_size))
        return out


class VisionTransformer(TokenEncoder):
    """Patch embedding, positions, blocks, final norm; see the top of this file.

    Args:
        form: sizes, with all options that it has a default of.
        options: settings; those that `form` has are taken from there.
        in_channels: channels of the image.
    """

    def __init__(self, form: VisionTransformerForm, options: VisionTransformerOptions, *, in_channels: int = 3):
        super().__init__()
        width, has_class = form.width, options.class_token
        self.width, self.patch_size, self.size_divisibility = width, form.patch_size, 1
        self.prefix_tokens = has_class + form.registers
        self.grid = (form.image_size[0] // form.patch_size, form.image_size[1] // form.patch_size)
        self.mode, self.antialias = options.position_resize, options.position_antialias
        self.norm_last_only = options.norm_last_only
        self.rotary_width = width // form.heads if form.rotary else 0
        self.relative_positions = options.relative_positions
        if self.relative_positions and self.prefix_tokens != 1:
            raise UsageError("relative_positions: expected a class token and no registers")
        absolute = not form.rotary if options.absolute_positions is None else options.absolute_positions

        self.patch_embed = PatchEmbedding(in_channels, width, patch_size=form.patch_size, bias=options.patch_bias)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if has_class else None
        self.reg_token = nn.Parameter(torch.zeros(1, form.registers, width)) if form.registers else None
        rows = (has_class and options.class_position) + self.grid[0] * self.grid[1]
        self.pos_embed = nn.Parameter(torch.zeros(1, rows, width)) if absolute else None
        self.pos_drop = nn.Dropout(options.dropout)
        self.norm_pre = nn.LayerNorm(width, eps=form.norm_eps) if options.pre_norm else nn.Identity()
        rates = torch.linspace(0, options.drop_path, form.depth, device="cpu").tolist()
        block = partial(
            Block,
            form,
            qkv_bias=options.qkv_bias,
            key_bias=not form.rotary if options.key_bias is None else options.key_bias,
            dropout=options.dropout,
            grid=self.grid if self.relative_positions else None,
        )
        self._modules["blocks"] = nn.ModuleList(block(drop_path=rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=form.norm_eps) if options.final_norm else nn.Identity()
        init_weights(self)
        for parameter in (self.cls_token, self.reg_token, self.pos_embed):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The transformer's blocks, in order."""
        blocks: Any = self._modules["blocks"]
        return cast("Sequence[nn.Module]", blocks)

    def embed(self, x: Tensor) -> tuple[Tensor, Positions]:
        """Map an image (N, C, H, W) to what goes into the first block: tokens (N, L, D), and where they stand."""
        patches = self.patch_embed(x)
        grid = (patches.shape[-2], patches.shape[-1])
        tokens = patches.flatten(2).transpose(1, 2)  # (N, h w, D)
        first: Tensor | None = self.cls_token
        if self.pos_embed is not None:
            rows = self.pos_embed.shape[1] - self.grid[0] * self.grid[1]  # 1 or, where no class token has one, 0
            tokens = tokens + self.resized(self.pos_embed[:, rows:], grid)
            first = first + self.pos_embed[:, :1] if first is not None and rows else first
        prefix = [token.expand(x.shape[0], -1, -1) for token in (first, self.reg_token) if token is not None]
        tokens = self.norm_pre(self.pos_drop(torch.cat([*prefix, tokens], dim=1)))
        rotation = rotations(grid, self.rotary_width, tokens.device) if self.rotary_width else None
        relation = relations(grid, tokens.device) if self.relative_positions else None
        return tokens, Positions(grid, rotation, relation)

    def resized(self, rows: Tensor, grid: tuple[int, int]) -> Tensor:
        """Map positions (1, h' w', D) of the stored grid to those of a grid, (1, h w, D)."""
        if not torch.compiler.is_compiling() and grid == self.grid:  # resized to their own size they stay as they are
            return rows
        return resize_grid(rows, self.grid, grid, mode=self.mode, antialias=self.antialias)

    def forward(self, x: Tensor, at: Sequence[int] = (-1,), *, norm: bool = True) -> Tokens:
        """Map an image (N, C, H, W) of any size to the tokens after the blocks `at`, see `TokenEncoder`."""
        indices = self.block_indices(at)
        x, positions = self.embed(x)
        found: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks[: max(indices) + 1]):
            x = self.run_stage(partial(block, positions=positions), x)
            if index in indices:
                normed = norm and (index == len(self.blocks) - 1 or not self.norm_last_only)
                found[index] = self.norm(x) if normed else x
        split = self.prefix_tokens
        patches, prefix = (tuple(found[i][:, part] for i in indices) for part in (slice(split, None), slice(split)))
        return Tokens(patches, prefix, positions.grid)

    def stages(self) -> list[list[nn.Module]]:
        """Return the patch embedding, then each block; the final norm goes with the last block.

        Class token, registers and position embeddings are in no module: like the first stage, they are the input.
        """
        *blocks, last = ([block] for block in self.blocks)
        return [[self.patch_embed, self.pos_drop, self.norm_pre], *blocks, [*last, self.norm]]


def resize_grid(
    rows: Tensor, before: tuple[int, int], after: tuple[int, int], *, mode: str, antialias: bool = False
) -> Tensor:
    """Resize what belongs to the cells of a grid: (1, h w, D) of the grid `before` to (1, h' w', D) of `after`."""
    cells = rows.float().transpose(1, 2).unflatten(2, before)
    cells = F.interpolate(cells, size=after, mode=mode, align_corners=False, antialias=antialias)
    return cells.flatten(2).transpose(1, 2).to(rows.dtype)


def distances(grid: tuple[int, int]) -> tuple[int, int]:
    """Return how many distances there are between rows, and between columns, of a grid."""
    return 2 * grid[0] - 1, 2 * grid[1] - 1


def relations(grid: tuple[int, int], device: torch.device) -> Tensor:
    """Return the row of a block's table for each pair of query and key, (L, L); the class token is the first."""
    h, w = grid
    y = torch.arange(h, device=device)[:, None].expand(h, w).flatten()
    x = torch.arange(w, device=device).expand(h, w).flatten()
    apart = [c[:, None] - c[None, :] for c in (y, x)]  # (h w, h w) each
    between = (apart[0] + h - 1) * (2 * w - 1) + apart[1] + w - 1
    rows, columns = distances(grid)
    own, count = rows * columns, h * w
    from_class = torch.full((1, count), own, device=device)
    to_class = torch.full((count, 1), own + 1, device=device)
    itself = torch.full((1, 1), own + 2, device=device)
    return torch.cat([torch.cat([itself, from_class], dim=1), torch.cat([to_class, between], dim=1)])


def rotations(grid: tuple[int, int], width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (h w, d) that turn queries and keys of patches, d being `width`.

    The first half of the angles is used for the second half of channels, too. A quarter of them follows the row of a
    patch, a quarter its column, both from -1 to 1 over the image.
    """
    y, x = ((torch.arange(side, device=device, dtype=torch.float32) + 0.5) / side * 2 - 1 for side in grid)
    places = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flatten(0, 1)  # (h w, 2)
    steps = torch.arange(width // 4, device=device, dtype=torch.float32) / (width // 4)
    angles = (2 * math.pi * places[:, :, None] / ROTARY_BASE**steps).flatten(1)
    angles = torch.cat([angles, angles], dim=1)
    return angles.cos(), angles.sin()


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn the patches of x (N, M, L, d), the last h w of its tokens; channel i goes with channel i + d / 2."""
    before = x.shape[2] - cosine.shape[0]
    prefix, patches = x[:, :, :before], x[:, :, before:]
    first, second = patches.chunk(2, dim=-1)
    turned = patches * cosine + torch.cat([-second, first], dim=-1) * sine
    return torch.cat([prefix, turned.to(x.dtype)], dim=2)


def joined(bias: Tensor, mask: Tensor | None) -> Tensor:
    """Return a bias of attention (1, M, L, L) with a mask, as of `Block`, over it."""
    if mask is None:
        return bias
    return bias.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else bias + mask


def make(form: VisionTransformerForm, options: VisionTransformerOptions, in_channels: int) -> VisionTransformer:
    """Make a plain vision transformer of a form, those of its settings that options have being theirs.

    Raises:
        UsageError: options that contradict each other.
    """
    own = ("depth", "hidden", "patch_size", "image_size", "registers", "layer_scale", "norm_eps")
    given = {key: getattr(options, key) for key in own if getattr(options, key) is not None}
    return VisionTransformer(replace(form, **given), options, in_channels=in_channels)


def build(spec: EncoderSettings, in_channels: int) -> VisionTransformer:
    """Make a plain vision transformer by name, see `FORMS`; raises as `make`."""
    return make(FORMS[spec.name], spec.options, in_channels)


FAMILY = EncoderFamily(options=VisionTransformerOptions, build=build)
