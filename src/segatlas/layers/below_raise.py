"""Raise several maps, put them side by side, apply a 1x1 convolution: computed below the raise.

A 1x1 convolution of a raised map equals the raised 1x1 convolution, since the weights of a pixel in bilinear
interpolation sum to one. So each map meets its slice of the kernel at its own size, and the results are raised and
summed: the wide map at the finest size is never built.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F


def fuse_below_raise(maps: Sequence[Tensor], kernels: Sequence[Tensor], *, align_corners: bool) -> Tensor:
    """Return the sum of the raised 1x1 convolutions.

    Args:
        maps: (N, C_i, h_i, w_i) each; the first has the size of the result.
        kernels: (D, C_i) each: the slices of the kernel of the convolution over the maps side by side.
        align_corners: of the raise.

    Returns:
        (N, D, h_0, w_0).
    """
    finest, *coarser = (F.conv2d(x, kernel[:, :, None, None]) for x, kernel in zip(maps, kernels, strict=True))
    for x in coarser:
        finest = finest + F.interpolate(x, size=finest.shape[-2:], mode="bilinear", align_corners=align_corners)
    return finest
