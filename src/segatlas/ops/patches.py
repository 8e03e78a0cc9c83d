"""Square patches that tile maps, and what they attend to: the arithmetic of attention across feature maps.

Letters: N batch, K classes, H W canvas, h w map of features, P side of a patch, I F patches of the image and the map.
The attention is A = image @ features^T / P^2, (N, K, I, F). Where the map has more patches than a patch has values it
is not made: at 1024 x 1024, stride 2 and 12 classes it would take 1.3 GB an image. A product with it is then one with
its two factors, a sum of squares is one over their small products (P^2, P^2), and what needs its single values goes by
chunks of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from segatlas.ops.capture import is_captured, larger
from segatlas.structures import PatchAttention

Border = Literal["pad", "drop"]
"""Patches at the right and bottom border that are not full go on with zeros, or are left out."""

CHUNK_VALUES = 1 << 21
"""Values of A that are held at once."""


def patch_grid(size: tuple[int, int], side: int, border: Border) -> tuple[int, int]:
    """Return the rows and columns of patches of a map of this size."""
    rows, columns = (-(-length // side) if border == "pad" else length // side for length in size)
    return rows, columns


def fitted(x: Tensor, size: tuple[int, int], value: float = 0) -> Tensor:
    """Bring the last two dimensions to a size: cut or filled up at the right and at the bottom."""
    if not is_captured() and tuple(x.shape[-2:]) == tuple(size):
        return x
    below, right = (larger(0, wanted - length) for wanted, length in zip(size, x.shape[-2:], strict=True))
    x = F.pad(x, (0, right, 0, below), value=value)
    if not is_captured():
        return x[..., : size[0], : size[1]]
    for dim, length in ((-2, size[0]), (-1, size[1])):  # a cut would ask whether there is so much
        x = x.index_select(dim, torch.arange(length, device=x.device))
    return x


def to_patches(x: Tensor, side: int, border: Border) -> Tensor:
    """Map (N, K, H, W) to its patches (N, K, I, P^2), row by row, each row by row."""
    rows, columns = patch_grid((x.shape[-2], x.shape[-1]), side, border)
    x = fitted(x, (rows * side, columns * side))
    blocks = x.reshape(*x.shape[:2], rows, side, columns, side)
    return blocks.permute(0, 1, 2, 4, 3, 5).reshape(*x.shape[:2], rows * columns, side * side)


def from_patches(patches: Tensor, side: int, size: tuple[int, int], border: Border) -> Tensor:
    """Map patches (N, K, I, P^2) back to (N, K, *size): without what they go on with, 0 where there is no patch."""
    rows, columns = patch_grid(size, side, border)
    blocks = patches.reshape(*patches.shape[:2], rows, columns, side, side)
    whole = blocks.permute(0, 1, 2, 4, 3, 5).reshape(*patches.shape[:2], rows * side, columns * side)
    return fitted(whole, size)


def class_fractions(
    labels: Tensor, classes: int, stride: int, cells: tuple[int, int], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return how much of each cell every class takes, (N, K, h, w), 0..1: the average of the one-hot labels.

    Args:
        labels: (N, H, W) integer; what is no class (255, and beyond the map) takes part of a cell as none.
        classes: K.
        stride: pixels along a side of a cell.
        cells: (h, w).
        dtype: of the result.
    """
    (height, width), count = cells, labels.shape[0]
    index = labels.long()
    index = fitted(torch.where(index < classes, index, classes), (height * stride, width * stride), value=classes)
    blocks = index.reshape(count, height, stride, width, stride).permute(0, 1, 3, 2, 4)
    blocks = blocks.reshape(count, height * width, stride * stride)
    counts = torch.zeros(count, height * width, classes + 1, dtype=dtype, device=labels.device)
    counts = counts.scatter_add(2, blocks, torch.ones((), dtype=dtype, device=labels.device).expand_as(blocks))
    return (counts[..., :classes] / stride**2).transpose(1, 2).reshape(count, classes, height, width)


def carried_back(attention: PatchAttention, values: Tensor, small: float) -> Tensor:
    """Return for each patch of the image the mean of A times values, over the patches of the map that it attends to.

    Args:
        attention: A.
        values: (N, K, F, P^2), of each patch of the map.
        small: added to the number of these patches, which may be 0. It has no gradient.

    Returns:
        (N, K, I, P^2).
    """
    image, features = attention.image, attention.features
    if is_whole(attention):
        whole = image @ features.mT
        products, counts = whole @ values, attended(whole)
    else:
        products = image @ (features.mT @ values)
        counts = torch.cat([attended(rows) for rows in attention_rows(attention)], dim=2)
    return products.div_((counts + small) * attention.side**2)


def is_whole(attention: PatchAttention) -> bool:
    """Tell whether A is made at once: it is no larger than its factor of the image. Not while a graph is captured."""
    return not is_captured() and attention.features.shape[2] <= attention.side**2


def attended(rows: Tensor) -> Tensor:
    """Return of rows of A, (N, K, rows, F), how many values are not 0, (N, K, rows, 1), of its type."""
    return torch.count_nonzero(rows.detach(), dim=-1).unsqueeze(-1).to(rows.dtype)


@torch.no_grad()
def attention_rows(attention: PatchAttention) -> Iterator[Tensor]:
    """Yield A P^2, (N, K, rows, F), a chunk of patches of the image at a time; all of it while a graph is captured."""
    image, features = attention.image, attention.features
    if is_captured():
        yield image @ features.mT
        return
    each_row = max(image.shape[0] * image.shape[1] * features.shape[2], 1)
    for part in image.split(max(CHUNK_VALUES // each_row, 1), dim=2):
        yield part @ features.mT


def squared_differences(attention: PatchAttention, image: Tensor, features: Tensor) -> Tensor:
    """Return the sum of (A - B)^2 over all values, B = image @ features^T / P^2: of factors (N, K, I or F, P^2).

    Where A is not made: |A|^2 - 2 <A, B> + |B|^2, each a sum over products (P^2, P^2) of the factors.
    """
    own, other = (attention.image, attention.features), (image, features)
    if is_whole(attention):
        return (own[0] @ own[1].mT - image @ features.mT).square().sum() / attention.side**4

    def product(one: tuple[Tensor, Tensor], two: tuple[Tensor, Tensor]) -> Tensor:
        return ((one[0].mT @ two[0]) * (one[1].mT @ two[1])).sum()

    total = product(own, own) - 2 * product(own, other) + product(other, other)
    return total / attention.side**4
