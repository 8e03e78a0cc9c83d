"""Attention over feature maps without a matrix of all pixel pairs.

The non-local family (non-local, disentangled non-local, object context, interlaced attention, dual attention) compares
every pixel of one map with every pixel of another. Written out, that matrix has (h w)^2 entries: 268 MB for a 64 x 128
map. Here it is gone through in pieces and never kept, forward or backward.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from segatlas.ops.capture import is_captured

_BLOCK_ENTRIES = 2**20
"""Entries of the matrix that exist at once on the way of `_by_blocks`: 4 MiB in fp32."""


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
    if scale is None:
        scale = channels**-0.5
    q, v = _tokens(query), _tokens(value)
    if depth > channels and value.device.type == "cpu" and not is_captured():
        out = _by_blocks(q, key.flatten(2).unsqueeze(1), v, scale)
    else:
        k = _tokens(key)
        # The fused kernel wants as many channels in the values as in the keys; it is cheap to add zeros there.
        out = F.scaled_dot_product_attention(q, k, F.pad(v, (0, max(channels - depth, 0))), scale=scale)[..., :depth]
    return out[:, 0].transpose(1, 2).unflatten(2, query.shape[-2:])


def _by_blocks(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Attend from some query pixels at a time; keys are (N, 1, C, h' w').

    For values with more channels than keys, where the processor's fused kernel would need keys grown to that width
    and be slower than the plain way. Backward computes each block again, so that none is kept.
    """
    rows = max(1, _BLOCK_ENTRIES // (k.shape[0] * k.shape[3]))
    kept = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    blocks = []
    for part in q.split(rows, dim=2):
        blocks.append(checkpoint(_block, part, k, v, scale, use_reentrant=False) if kept else _block(part, k, v, scale))
    return torch.cat(blocks, dim=2)


def _block(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return (q * scale @ k).softmax(dim=-1) @ v


def _tokens(x: Tensor) -> Tensor:
    """Lay a map (N, C, h, w) out as (N, 1, h w, C); the fused kernel needs a token's channels adjacent in memory."""
    return x.flatten(2).transpose(1, 2).unsqueeze(1).contiguous()
