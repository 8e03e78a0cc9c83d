"""Growing an image to a size that a network can take."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.ops.capture import is_captured, larger, may_differ


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Pad (N, C, H, W) right and bottom to multiples of pixels, with zeros: a normalised image's mean colour."""
    height, width = x.shape[-2:]
    padded = [-(-side // multiple) * multiple for side in (height, width)]
    if not may_differ(padded, (height, width)):
        return x
    return F.pad(x, (0, padded[1] - width, 0, padded[0] - height))


def pad_to_least(x: Tensor, least: int) -> Tensor:
    """Pad (N, C, H, W) right and bottom with zeros to so many pixels a side, where it has fewer."""
    bottom, right = (larger(0, least - side) for side in x.shape[-2:])
    return F.pad(x, (0, right, 0, bottom)) if may_differ((bottom, right), (0, 0)) else x


def cut(x: Tensor, top: int, left: int, size: tuple[int, int]) -> Tensor:
    """Cut a window of `size` out of a map (N, C, h, w): a view, but a copy while a graph is captured.

    How a view lies in memory depends on what was cut away, and what comes after it asks for that.
    """
    if not is_captured():
        return x[:, :, top : top + size[0], left : left + size[1]]
    for dim, first, length in ((2, top, size[0]), (3, left, size[1])):
        x = x.index_select(dim, torch.arange(length, device=x.device) + first)
    return x
