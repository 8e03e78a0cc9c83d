"""Attention over feature maps without a matrix of all pixel pairs.

The non-local family (non-local, disentangled non-local, object context, interlaced attention, dual attention) compares
every pixel of one map with every pixel of another. Written out, that matrix has (h w)^2 entries: 268 MB for a 64 x 128
map. The fused kernel goes through it in pieces and keeps none, forward or backward.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float | None = None) -> Tensor:
    """Return softmax(scale * query^T key) value: each query pixel gets a mean of `value`, weighted by likeness.

    Papers: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; on maps: Wang et al. 2018, "Non-local Neural
    Networks", https://arxiv.org/abs/1711.07971 (its embedded Gaussian).

    Args:
        query: (N, C, h, w).
        key: (N, C, h', w'), any h' and w'.
        value: (N, D, h', w'), any D.
        scale: factor of the products before the softmax; None = 1 / sqrt(C).

    Returns:
        (N, D, h, w).
    """
    channels, depth = query.shape[1], value.shape[1]
    width = max(channels, depth)
    # The kernel takes one channel count; further zeros change no product and give channels that are cut off again.
    out = F.scaled_dot_product_attention(
        _tokens(query, width),
        _tokens(key, width),
        _tokens(value, width),
        scale=channels**-0.5 if scale is None else scale,
    )
    return out[:, 0, :, :depth].transpose(1, 2).unflatten(2, query.shape[-2:])


def _tokens(x: Tensor, width: int) -> Tensor:
    """Lay a map (N, C, h, w) out as (N, 1, h w, width); the fused kernel needs a token's channels side by side."""
    tokens = x.flatten(2).transpose(1, 2).unsqueeze(1)
    return F.pad(tokens, (0, width - x.shape[1])) if width > x.shape[1] else tokens.contiguous()
