"""How far a student's maps are from its teacher's: pixel by pixel, channel by channel, pair by pair of positions.

Letters: N batch, C channels or classes, h w map, n positions, s and t the student's and the teacher's values, T the
temperature. The student's map is brought to the teacher's positions first (`at_positions`); teachers need no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]

_TINY = 1e-8
"""Added to lengths that are divided by, as in the published code."""


def pixel_wise(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T^2 times the mean over pixels of KL(softmax(t / T) || softmax(s / T)), the softmax over classes.

    Paper: Liu et al. 2020, "Structured Knowledge Distillation for Dense Prediction", https://arxiv.org/abs/1903.04197;
    its code divides by the number of classes, too. A constant added to all logits of a pixel changes nothing.

    Args:
        student: (N, C, h, w) logits.
        teacher: of the same shape.
        temperature: above 0.
    """
    apart = _divergence(student.flatten(2), teacher.flatten(2), 1, temperature)
    return apart * (temperature**2 / (student.shape[0] * student.shape[2] * student.shape[3]))


def channel_wise(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Return T^2 times the mean over channels of KL(softmax(t / T) || softmax(s / T)), the softmax over positions.

    Paper: Shu et al. 2021, "Channel-wise Knowledge Distillation for Dense Prediction", https://arxiv.org/abs/2011.13256.
    Sums of positions are not divided by their number. A constant added to a channel changes nothing.

    Args:
        student: (N, C, h, w), logits or any other map.
        teacher: of the same shape.
        temperature: above 0.
    """
    apart = _divergence(student.flatten(2), teacher.flatten(2), 2, temperature)
    return apart * (temperature**2 / (student.shape[0] * student.shape[1]))


def pair_wise(student: Tensor, teacher: Tensor, pooling: float = 0.125) -> Tensor:
    """Return the mean over samples and pairs of positions of the squared difference of their likenesses.

    Maps are max-pooled to cells of `pooling` of their sides (rounded down, at least one; a last cell may be smaller);
    the likeness of two cells is the cosine of their channels, whose lengths count as constants. The numbers of channels
    may differ, and their order means nothing. Paper: as `pixel_wise`; its code has cells of half a side.

    Args:
        student: (N, C, h, w).
        teacher: (N, C', h, w).
        pooling: side of a cell as a fraction of the map's, 0..1.
    """
    height, width = teacher.shape[-2:]
    cell = (max(int(height * pooling), 1), max(int(width * pooling), 1))
    alike = [_cosines(F.max_pool2d(maps, cell, cell, ceil_mode=True)) for maps in (student, teacher)]
    return (alike[0] - alike[1]).square().mean()


def _cosines(maps: Tensor) -> Tensor:
    """Return (N, n, n), the cosine of each two positions of (N, C, h, w)."""
    values = maps.flatten(2)
    directions = values / (values.detach().norm(dim=1, keepdim=True) + _TINY)
    return directions.transpose(1, 2) @ directions


def _divergence(student: Tensor, teacher: Tensor, dim: int, temperature: float) -> Tensor:
    """Return the sum of KL(softmax(teacher / T) || softmax(student / T)), the softmax along `dim`."""
    ours, theirs = (F.log_softmax(values / temperature, dim) for values in (student, teacher))
    return F.kl_div(ours, theirs, reduction="sum", log_target=True)


def at_positions(maps: Tensor, canvas: Size, size: Size, of_canvas: Size) -> Tensor:
    """Return a map (N, C, h, w) over `canvas` at the positions of another map, of `size` over `of_canvas`.

    Bilinear, the centre of a cell for its position. Where both cover the same pixels this is torch's `interpolate`. Two
    networks may pad an image differently: positions of the other map beyond `canvas` are left out, so cut that one by
    `positions_within` as well.

    Args:
        maps: what is interpolated.
        canvas: (H, W) pixels that it covers.
        size: (h', w') of the other map.
        of_canvas: (H', W') pixels that the other covers.
    """
    if canvas == of_canvas:
        same = tuple(maps.shape[-2:]) == tuple(size)
        return maps if same else F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    count = positions_within(canvas, size, of_canvas)
    for axis in (0, 1):
        dim, cells = axis + 2, maps.shape[axis + 2]
        centers = (torch.arange(count[axis], device=maps.device) + 0.5) * (of_canvas[axis] / size[axis])
        places = (centers * (cells / canvas[axis]) - 0.5).clamp(0, cells - 1)
        low = places.long().clamp(max=max(cells - 2, 0))
        weight = (places - low).to(maps.dtype).view([-1 if index == dim else 1 for index in range(4)])
        first, second = maps.index_select(dim, low), maps.index_select(dim, (low + 1).clamp(max=cells - 1))
        maps = first + (second - first) * weight
    return maps


def positions_within(canvas: Size, size: Size, of_canvas: Size) -> Size:
    """Return how many rows and columns of a map of `size` over `of_canvas` have their centres on `canvas`."""
    rows, columns = (
        min(cells, max(int(-((0.5 - covers * cells / of) // 1)), 1))
        for covers, cells, of in zip(canvas, size, of_canvas, strict=True)
    )
    return rows, columns
