"""Co-attention: two maps look at each other, each pixel of one at all pixels of the other.

Papers: Lu et al. 2019, "See More, Know More: Unsupervised Video Object Segmentation with Co-Attention Siamese
Networks", https://arxiv.org/abs/2001.06810; in the form of Wu et al. 2024, "KF-VTON",
https://doi.org/10.1145/3673903.

Idea: one affinity of all pairs of pixels, read along its rows and along its columns, says what each map finds of itself
in the other. Both readings are attention, and neither keeps the affinity: it has (h w)^2 entries.

Letters: N batch, C channels, h w map, P pooling of the keys.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.ops.attention import attend
from segatlas.ops.capture import is_captured


class CoAttention(nn.Module):
    """Maps of two sources -> both again, each with what it found in the other, gated.

    With the affinity W = A^T L B of all pixels of A and B, A gets B softmax(W^T) and B gets A softmax(W), each softmax
    over the pixels that are looked at.

    Args:
        channels: of either map, C.
        pool: keys and values are averaged over squares of so many pixels a side before they are looked at: fewer
            pairs, by P^2. Height and width must be multiples of it.
        scale: factor of W before the softmax: 1 as published, None = 1 / sqrt(C), as attention has it elsewhere.
    """

    def __init__(self, channels: int, *, pool: int = 1, scale: float | None = 1.0):
        super().__init__()
        self.pool = pool
        self.scale = channels**-0.5 if scale is None else scale
        self.channels = channels
        self.linear = nn.Conv2d(channels, channels, 1, bias=False)
        self.gate = nn.Conv2d(channels, 1, 1, bias=False)
        self.first = nn.Conv2d(2 * channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(2 * channels, channels, 3, padding=1, bias=False)

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Map A and B, (N, C, h, w) both, to two maps of the same shape.

        Raises:
            UsageError: the maps are not of one shape, or not of C channels.
        """
        of_first, of_second = self.contexts(first, second)
        return self.first(self._gated(of_first, first)), self.second(self._gated(of_second, second))

    def contexts(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return what A finds in B, and B in A: (N, C, h, w) both."""
        self._check(first, second)
        projected = self.linear(first)
        keys = self._pooled(second)
        of_first = attend(projected, keys, keys, self.scale)
        of_second = attend(second, self._pooled(projected), self._pooled(first), self.scale)
        return of_first, of_second

    def weights(self, first: Tensor, second: Tensor, row: int, column: int) -> Tensor:
        """Return where a pixel of A looks in B: (N, h / P, w / P), of sum 1. For figures."""
        self._check(first, second)
        query = self.linear(first)[:, :, row, column]
        keys = self._pooled(second)
        scores = torch.einsum("nc,nchw->nhw", query, keys) * self.scale
        return scores.flatten(1).softmax(dim=1).view_as(scores)

    def _pooled(self, x: Tensor) -> Tensor:
        return x if self.pool == 1 else F.avg_pool2d(x, self.pool)

    def _gated(self, context: Tensor, x: Tensor) -> Tensor:
        return torch.cat([torch.sigmoid(self.gate(context)) * context, x], dim=1)

    def _check(self, first: Tensor, second: Tensor) -> None:
        if is_captured():
            return
        if first.shape != second.shape or first.shape[1] != self.channels:
            found = f"{tuple(first.shape)} and {tuple(second.shape)}"
            raise UsageError(f"co-attention got maps of {found}, expected two of one shape (N, {self.channels}, h, w)")
        if self.pool > 1 and any(side % self.pool for side in first.shape[-2:]):
            raise UsageError(f"co-attention with pool={self.pool} got maps of {tuple(first.shape)}, no multiple of it")
