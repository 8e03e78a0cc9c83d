"""Upsample several maps, concatenate them, apply a convolution: computed before the upsampling.

A 1x1 convolution of an upsampled map equals the upsampled 1x1 convolution, since the weights of a pixel in bilinear
interpolation sum to one. So each map meets its slice of the kernel at its own size, and the results are upsampled and
summed: the wide map at the finest size is never built.

A larger kernel is a sum of 1x1 kernels, each followed by a shift, and a shifted upsampling is still a product with two
small matrices, one for rows and one for columns. For maps of a few pixels (pooled ones) that costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def fuse_before_upsampling(maps: Sequence[Tensor], kernels: Sequence[Tensor], *, align_corners: bool) -> Tensor:
    """Return the sum of the upsampled 1x1 convolutions.

    Args:
        maps: (N, C_i, h_i, w_i) each; the first has the size of the result.
        kernels: (D, C_i) each: the slices of the kernel of the convolution over the maps concatenated.
        align_corners: of the upsampling.

    Returns:
        (N, D, h_0, w_0).
    """
    finest, *coarser = (F.conv2d(x, kernel[:, :, None, None]) for x, kernel in zip(maps, kernels, strict=True))
    for x in coarser:
        finest = finest + F.interpolate(x, size=finest.shape[-2:], mode="bilinear", align_corners=align_corners)
    return finest


def convolve_before_upsampling(
    maps: Sequence[Tensor], kernels: Sequence[Tensor], size: tuple[int, int], *, align_corners: bool
) -> Tensor:
    """Return the sum of the convolutions ("same" padding with zeros) of small maps upsampled to `size`.

    Args:
        maps: (N, C_i, h_i, w_i) each, of a few pixels.
        kernels: (D, C_i, k, k) each, k odd: the slices of the kernel of the convolution over the maps concatenated.
        size: (h, w) of the result.
        align_corners: of the upsampling.

    Returns:
        (N, D, h, w).
    """
    products = (F.conv2d(x, taps_as_channels(kernel)) for x, kernel in zip(maps, kernels, strict=True))
    return upsample_taps(products, kernels[0].shape[-1], size, align_corners=align_corners)


def taps_as_channels(kernel: Tensor) -> Tensor:
    """Return the 1x1 kernel (k k D, C, 1, 1) that makes the product of each tap of a kernel (D, C, k, k)."""
    return kernel.permute(2, 3, 0, 1).flatten(0, 2)[:, :, None, None]


def upsample_taps(
    products: Iterable[Tensor], kernel_size: int, size: tuple[int, int], *, align_corners: bool
) -> Tensor:
    """Upsample the products of a kernel's taps, shift each to its place and sum all: (N, D, h, w).

    Args:
        products: (N, k k D, h_i, w_i) each, as a convolution with `taps_as_channels` gives them; one is held at a time.
        kernel_size: k.
        size: (h, w) of the result.
        align_corners: of the upsampling.
    """
    parts, across = [], []
    for x in products:
        height, width = x.shape[-2:]
        taps = x.reshape(x.shape[0], kernel_size, kernel_size, -1, height, width)  # (N, a, b, D, h_i, w_i)
        taps = taps.permute(0, 3, 2, 5, 1, 4).flatten(4).flatten(2, 3)  # (N, D, b w_i, a h_i)
        down, right = (
            upsample_and_shift(length, upsampled, kernel_size, align_corners=align_corners, device=x.device).to(x.dtype)
            for length, upsampled in zip((height, width), size, strict=True)
        )
        del x  # a product is nine times its map: none is kept for longer than it is needed
        parts.append(taps @ down)
        del taps
        across.append(right)
    joined = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
    parts.clear()
    return joined.mT @ torch.cat(across)


def upsample_and_shift(
    length: int, upsampled: int, kernel_size: int, *, align_corners: bool, device: torch.device | None = None
) -> Tensor:
    """Return the matrix (k length, upsampled) of a bilinear upsampling of a line, shifted by each kernel tap.

    Row (tap, pixel) and column j hold the weight of that pixel in place j + tap - (k - 1) / 2 of the upsampled line;
    places beyond its ends are zero, as a convolution pads.
    """
    identity = torch.eye(length, device=device).view(1, length, length, 1)
    weights = F.interpolate(identity, size=(upsampled, 1), mode="bilinear", align_corners=align_corners).view(
        length, -1
    )
    padded = F.pad(weights, (kernel_size // 2, kernel_size // 2))
    return torch.cat([padded[:, tap : tap + upsampled] for tap in range(kernel_size)])
