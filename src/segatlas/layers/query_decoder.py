"""Parts of decoders in which queries look at a map: attention, feed-forward part, positions, and masks of queries.

Letters: N batch, D width, M heads, Q queries, T cells of a map h x w.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.layers.linear import TokenLinear
from segatlas.ops.full_precision import in_full_precision

TEMPERATURE = 10000
"""Ratio of the longest wave to the shortest, about."""


class MultiHeadAttention(nn.Module):
    """Attention of queries to keys with values, all of the same width.

    Args:
        width: D.
        heads: M.
        dropout: fraction of the attention that is dropped while training.
    """

    def __init__(self, width: int, *, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q, self.k, self.v, self.proj = (TokenLinear(width, width) for _ in range(4))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Map queries (N, Q, D), keys and values (N, T, D) to (N, Q, D).

        `allowed` (N, 1, Q, T) bool tells which keys a query may attend to; each has one at least. None = all.
        """
        q, k, v = (self._by_head(x) for x in (self.q(query), self.k(key), self.v(value)))
        dropout = self.dropout if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=dropout)
        out: Tensor = self.proj(x.transpose(1, 2).flatten(2))
        return out

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (N, M, Q, D / M)


class QueryFeedForward(nn.Sequential):
    """Widen, ReLU, narrow; a fraction is dropped behind either step while training."""

    def __init__(self, width: int, hidden: int, *, dropout: float = 0.0):
        super().__init__()
        self.fc1 = TokenLinear(width, hidden)
        self.relu = nn.ReLU(inplace=True)
        self.dropout1 = nn.Dropout(dropout)
        self.fc2 = TokenLinear(hidden, width)
        self.dropout2 = nn.Dropout(dropout)


class PlainLayer(nn.Module):
    """Attention among queries, attention to a map, feed-forward part; each added, then a norm: DETR's decoder layer.

    Args:
        width: D.
        heads: M.
        hidden: width of the feed-forward part.
        dropout: fraction dropped while training.
    """

    def __init__(self, width: int, *, heads: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.self_attention = MultiHeadAttention(width, heads=heads, dropout=dropout)
        self.cross_attention = MultiHeadAttention(width, heads=heads, dropout=dropout)
        self.feed_forward = QueryFeedForward(width, hidden, dropout=dropout)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Map queries (N, Q, D) at positions (Q, D) to the same shape; keys and values are (N, T, D)."""
        placed = x + positions
        x = self.norm1(x + self.dropout(self.self_attention(placed, placed, x)))
        x = self.norm2(x + self.dropout(self.cross_attention(x + positions, key, value)))
        out: Tensor = self.norm3(x + self.feed_forward(x))
        return out


class MaskedLayer(nn.Module):
    """Masked attention to a map, attention among queries, feed-forward part; each added, then a norm: Mask2Former's.

    Args: as of `PlainLayer`.
    """

    def __init__(self, width: int, *, heads: int, hidden: int, dropout: float = 0.0):
        super().__init__()
        self.cross_attention = MultiHeadAttention(width, heads=heads, dropout=dropout)
        self.self_attention = MultiHeadAttention(width, heads=heads, dropout=dropout)
        self.feed_forward = QueryFeedForward(width, hidden, dropout=dropout)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, positions: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
        """Map queries (N, Q, D) at positions (Q, D) to the same shape.

        Args:
            x: the queries.
            positions: added to them where they attend.
            key: (N, T, D), of the cells of a map.
            value: likewise.
            allowed: (N, 1, Q, T) bool, where each may look.
        """
        x = self.norm1(x + self.dropout(self.cross_attention(x + positions, key, value, allowed)))
        placed = x + positions
        x = self.norm2(x + self.dropout(self.self_attention(placed, placed, x)))
        out: Tensor = self.norm3(x + self.feed_forward(x))
        return out


class MaskEmbedding(nn.Sequential):
    """What a query looks for in the map that masks are made of: three matrices with ReLU between them."""

    def __init__(self, width: int, channels: int):
        super().__init__(
            TokenLinear(width, width),
            nn.ReLU(inplace=True),
            TokenLinear(width, width),
            nn.ReLU(inplace=True),
            TokenLinear(width, channels),
        )


def mask_logits(embeddings: Tensor, features: Tensor) -> Tensor:
    """Map what queries look for (N, Q, C) and a map (N, C, h, w) to masks (N, Q, h, w)."""
    return (embeddings @ features.flatten(2)).unflatten(2, features.shape[-2:])


def exact_mask_logits(embeddings: Tensor, features: Tensor) -> Tensor:
    """Return `mask_logits` in float32 or better whatever the autocast around, as last logits of all networks are."""
    dtype = torch.promote_types(features.dtype, torch.float32)
    with in_full_precision(embeddings):
        return mask_logits(embeddings.to(dtype), features.to(dtype))


def sine_positions(grid: tuple[int, int], width: int, like: Tensor) -> Tensor:
    """Return where the cells of a map of so many rows and columns are, as waves of many lengths: (h w, D).

    The first half of the channels tells the row, the other the column; sine and cosine of each wave are adjacent
    (Carion et al. 2020, https://arxiv.org/abs/2005.12872). Computed in float32 as the authors do, then of the
    device and precision of `like`.
    """
    half = width // 2
    wave = torch.arange(half, dtype=torch.float32, device=like.device)
    lengths = TEMPERATURE ** (2 * wave.div(2, rounding_mode="floor") / half)
    axes = []
    for side in grid:
        place = torch.arange(1, side + 1, dtype=torch.float32, device=like.device)
        angles = (place / (place[-1:] + 1e-6) * (2 * math.pi))[:, None] / lengths
        axes.append(torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1))
    y, x = axes
    height, columns, rows = y.shape[0], x.shape[0], y[:, None]
    both = torch.cat([rows.expand(-1, columns, -1), x.expand(height, -1, -1)], dim=2)
    return both.flatten(0, 1).to(like.dtype)


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate a map (N, C, h, w) to another size."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def allowed_cells(logits: Tensor) -> Tensor:
    """Return where queries may look, (N, 1, Q, T) bool, of their masks (N, Q, h, w): inside, or all if empty."""
    inside = (logits >= 0).flatten(2)[:, None]
    return inside | ~inside.any(dim=3, keepdim=True)


def start_matrices(root: nn.Module) -> None:
    """Set the authors' starting weights: every matrix uniform by the number of its rows and columns, every bias 0."""
    for module in root.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
