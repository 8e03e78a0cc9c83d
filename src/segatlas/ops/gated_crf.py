"""The energy of probabilities under a kernel of position and colour within a window, and its gradient in the same pass.

With y the probabilities, the energy of a pair of pixels is k_ij (1 - y_i . y_j). The kernel is symmetric, so the
gradient by y_i is -2 sum_j k_ij y_j: that filtered map gives the value too, and nothing else has to be kept. Offsets
are walked one by one, each standing for both directions, so that no tensor is larger than the probabilities themselves.

Letters: N batch, K classes, h w, r radius, O = ((2 r + 1)^2 - 1) / 2 offsets, C channels of the colour.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Offset = tuple[int, int]


def gated_crf_energy(
    probabilities: Tensor, color: Tensor, valid: Tensor, *, radius: int, xy_sigma: float, color_sigma: float
) -> Tensor:
    """Return sum_ij k_ij (1 - y_i . y_j) over the number of valid pixels, a scalar; 0 where no pixel is valid.

    k_ij = exp(-|x_i - x_j|^2 / (2 xy_sigma^2) - |c_i - c_j|^2 / (2 color_sigma^2)) for j != i at most `radius` rows and
    columns from i where both are valid, else 0.

    Args:
        probabilities: (N, K, h, w) float, y.
        color: (N, C, h, w) float, c.
        valid: (N, h, w) bool, False outside the image.
        radius: of the window, r.
        xy_sigma: in pixels of the map.
        color_sigma: in units of `color`.
    """
    energy: Tensor = _Energy.apply(probabilities, color, valid, radius, xy_sigma, color_sigma)
    return energy


def slow_gated_crf_energy(
    probabilities: Tensor, color: Tensor, valid: Tensor, *, radius: int, xy_sigma: float, color_sigma: float
) -> Tensor:
    """Return the same by torch's own `unfold`, as the formula stands: for tests, differentiable."""
    n, _, height, width = probabilities.shape
    side = 2 * radius + 1
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    apart = ((rows - radius) ** 2 + (columns - radius) ** 2).to(probabilities).reshape(1, side**2, 1)

    def windows(maps: Tensor) -> Tensor:
        """Return what lies around each pixel, (N, channels, side^2, h w)."""
        found = torch.nn.functional.unfold(maps, side, padding=radius)
        return found.reshape(n, maps.shape[1], side**2, height * width)

    gate = windows(valid[:, None].to(probabilities))[:, 0] * valid.reshape(n, 1, -1)
    differs = (windows(color) - color.reshape(n, -1, 1, height * width)).square().sum(dim=1)
    kernel = torch.exp(-apart / (2 * xy_sigma**2) - differs / (2 * color_sigma**2)) * gate
    kernel = kernel * (apart > 0)
    same = (windows(probabilities) * probabilities.reshape(n, -1, 1, height * width)).sum(dim=1)
    return (kernel * (1 - same)).sum() / valid.sum().clamp(min=1)


def half_of_window(radius: int) -> Iterator[Offset]:
    """Yield one of each pair of opposite offsets (rows, columns) within a window, the middle left out."""
    for row in range(radius + 1):
        for column in range(-radius if row else 1, radius + 1):
            yield row, column


def shifted(maps: Tensor, offset: Offset) -> tuple[Tensor, Tensor]:
    """Return two views (..., h - |rows|, w - |columns|): the pixels that have one at the offset, and those there."""
    rows, columns = offset
    height, width = maps.shape[-2:]
    left, right = max(0, -columns), max(0, columns)
    here = maps[..., : height - rows, left : width - right]
    there = maps[..., rows:, right : width - left]
    return here, there


class _Energy(torch.autograd.Function):
    """See `gated_crf_energy`."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, color: Tensor, valid: Tensor, radius: int, xy_sigma: float, color_sigma: float
    ) -> Tensor:
        filtered = torch.zeros_like(y)
        color = color / color_sigma
        total = y.new_zeros((), dtype=torch.float64)
        for offset in half_of_window(radius):
            if offset[0] >= y.shape[-2] or abs(offset[1]) >= y.shape[-1]:
                continue
            here, there = shifted(color, offset)
            kernel = (here - there).square_().sum(dim=1)
            kernel += (offset[0] ** 2 + offset[1] ** 2) / xy_sigma**2
            kernel = kernel.mul_(-0.5).exp_()
            kernel *= torch.logical_and(*shifted(valid, offset))
            total += 2 * kernel.sum(dtype=torch.float64)
            kernel = kernel[:, None]
            (y_here, y_there), (to_here, to_there) = shifted(y, offset), shifted(filtered, offset)
            to_here.addcmul_(kernel, y_there)
            to_there.addcmul_(kernel, y_here)
        count = valid.sum().clamp(min=1)
        ctx.save_for_backward(filtered, count)
        return ((total - (filtered * y).sum(dtype=torch.float64)) / count).to(y.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        filtered, count = ctx.saved_tensors
        return filtered * (-2 * upstream / count).to(filtered.dtype), None, None, None, None, None
