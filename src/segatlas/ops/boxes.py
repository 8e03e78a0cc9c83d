"""Boxes: how they overlap, how they are coded against others, which of many are kept, what a map shows inside them.

Boxes are (B, 4) float: x0, y0, x1, y1 in pixels of the canvas. Letters: B boxes, T other boxes, N batch, D channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

LARGEST_GROWTH = math.log(1000 / 16)
"""Sides grow by this factor at most when deltas are decoded, as a logarithm: no `exp` of a wild number."""


def areas(boxes: Tensor) -> Tensor:
    """Return the areas (B,)."""
    return (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)


def intersections(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the areas (B, T) that boxes (B, 4) and others (T, 4) have in common."""
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    width, height = (high - low).clamp(min=0).unbind(2)
    return width * height


def ious(boxes: Tensor, others: Tensor) -> Tensor:
    """Return intersection over union (B, T); 0 where both are empty."""
    common = intersections(boxes, others)
    union = areas(boxes)[:, None] + areas(others)[None] - common
    return common / union.clamp(min=torch.finfo(common.dtype).tiny)


def generalized_ious(boxes: Tensor, others: Tensor) -> Tensor:
    """Return the generalised IoU (B,) of boxes (B, 4) with others (B, 4), one with one: -1..1.

    IoU, less the fraction of the box around both that neither covers (Rezatofighi et al. 2019,
    https://arxiv.org/abs/1902.09630). Areas count as 1e-6 at least.
    """
    width, height = (
        (torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])).clamp(min=0).unbind(1)
    )
    common = width * height
    union = (areas(boxes) + areas(others) - common).clamp(min=1e-6)
    sides = (torch.maximum(boxes[:, 2:], others[:, 2:]) - torch.minimum(boxes[:, :2], others[:, :2])).clamp(min=0)
    around = sides.prod(dim=1).clamp(min=1e-6)
    return common / union - (around - union) / around


def encode(boxes: Tensor, anchors: Tensor, weights: Sequence[float] = (1, 1, 1, 1)) -> Tensor:
    """Return the deltas (B, 4) that lead from anchors (B, 4) to boxes (B, 4), each times its weight.

    Centres move in units of the anchor's sides, sides grow by logarithms (Girshick et al. 2014, appendix C).
    """
    (x, y, width, height), (ax, ay, awidth, aheight) = _centred(boxes), _centred(anchors)
    moved = ((x - ax) / awidth, (y - ay) / aheight, (width / awidth).log(), (height / aheight).log())
    return torch.stack([value * weight for value, weight in zip(moved, weights, strict=True)], dim=1)


def decode(
    deltas: Tensor, anchors: Tensor, weights: Sequence[float] = (1, 1, 1, 1), *, shrink_limit: bool = False
) -> Tensor:
    """Return the boxes (B, 4) that deltas (B, 4) make of anchors (B, 4); see `encode`.

    shrink_limit: sides also shrink by that factor at most, and not only grow. Numbers are then rounded as MMDetection,
        which has that limit, rounds them: a last bit decides which of two overlapping boxes stays.
    """
    ax, ay, awidth, aheight = _centred(anchors)
    dx, dy, dw, dh = (deltas[:, index] / weight for index, weight in enumerate(weights))
    if shrink_limit:
        ax, ay = (anchors[:, 0] + anchors[:, 2]) * 0.5, (anchors[:, 1] + anchors[:, 3]) * 0.5
        dx, dy, dw, dh = (deltas[:, index] * (1 / weight) for index, weight in enumerate(weights))
    least = -LARGEST_GROWTH if shrink_limit else -math.inf
    width = dw.clamp(least, LARGEST_GROWTH).exp() * awidth
    height = dh.clamp(least, LARGEST_GROWTH).exp() * aheight
    x, y = dx * awidth + ax, dy * aheight + ay
    return torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=1)


def _centred(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return boxes[:, 0] + width / 2, boxes[:, 1] + height / 2, width, height


def clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the boxes cut at the borders of an image of `size` (H, W)."""
    x, y = boxes[:, 0::2].clamp(0, size[1]), boxes[:, 1::2].clamp(0, size[0])
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)


def are_wide(boxes: Tensor, least: float) -> Tensor:
    """Tell (B,) which boxes have two sides longer than `least`."""
    return (boxes[:, 2:] - boxes[:, :2] > least).all(dim=1)


def suppressed(
    boxes: Tensor, scores: Tensor, groups: Tensor, iou: float, most: int | None, *, shifted: bool = False
) -> Tensor:
    """Return the indices, by falling score, of boxes that no better box of their group overlaps by more than `iou`.

    shifted: groups are kept apart by moving each to a place of its own, and not by taking them one by one: equal scores
    then come in another order, and boxes are rounded a little.
    """
    from torchvision.ops import batched_nms, nms  # here: it brings torch's compiler, which a network is built without

    boxes, scores = boxes.float(), scores.float()
    if shifted and len(boxes):
        apart = groups.to(boxes) * (boxes.max() + 1)
        kept: Tensor = nms(boxes + apart[:, None], scores, iou)
    else:
        kept = batched_nms(boxes, scores, groups, iou)
    return kept if most is None else kept[:most]


def boxes_of_masks(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the boxes (M, 4) around masks (M, H, W) bool, and which masks (M,) hold a pixel; boxes of others are 0."""
    rows, columns = masks.any(dim=2), masks.any(dim=1)
    there = rows.any(dim=1)
    sides = []
    for lines in (columns, rows):
        length = lines.shape[1]
        index = torch.arange(length, device=masks.device)
        first = torch.where(lines, index, length).amin(dim=1)
        last = torch.where(lines, index + 1, 0).amax(dim=1)
        sides.append((torch.where(there, first, 0), last))
    (x0, x1), (y0, y1) = sides
    return torch.stack([x0, y0, x1, y1], dim=1).float(), there


def pooled(
    maps: Sequence[Tensor],
    strides: Sequence[int],
    boxes: Sequence[Tensor],
    side: int,
    *,
    aligned: bool = True,
    sampling: int = 0,
) -> Tensor:
    """Return what a pyramid shows inside boxes, each on a grid of its own: (sum of B, D, side, side).

    A box is read from the level that suits its size (Lin et al. 2017, equation 1): one of 224 pixels from stride 16,
    half as large from the next finer one, and so on.

    Args:
        maps: (N, D, h_i, w_i), finest first, each at half the size of the one before.
        strides: of each.
        boxes: (B, 4) of each image.
        side: cells of the grid a side.
        aligned: cells are read at their centres; else half a cell further, as at first.
        sampling: points a side of each cell; 0 = as many as pixels of the map lie in it.
    """
    owner = torch.cat([torch.full((len(one), 1), float(index)) for index, one in enumerate(boxes)])
    whole = torch.cat(list(boxes))
    if whole.is_meta:
        return maps[0].new_zeros(len(whole), maps[0].shape[1], side, side)
    rois = torch.cat([owner.to(whole), whole], dim=1)
    level = box_levels(whole, strides)
    found, order = [], []
    for index, (x, stride) in enumerate(zip(maps, strides, strict=True)):
        chosen = (level == index).nonzero()[:, 0]
        order.append(chosen)
        found.append(cells_of(x, rois[chosen].to(x.dtype), side, stride=stride, aligned=aligned, sampling=sampling))
    return torch.cat(found)[torch.cat(order).argsort()]


def cells_of(x: Tensor, rois: Tensor, side: int, *, stride: int = 1, aligned: bool = True, sampling: int = 0) -> Tensor:
    """Return what a map (N, D, h, w) shows in boxes (R, 5), the image's number first: (R, D, side, side)."""
    from torchvision.ops import roi_align  # as in `suppressed`

    cells: Tensor = roi_align(x, rois, side, 1 / stride, sampling or -1, aligned)
    return cells


def box_levels(boxes: Tensor, strides: Sequence[int]) -> Tensor:
    """Return the index (B,) of the level of a pyramid that each box is read from."""
    size = areas(boxes).sqrt()
    level = torch.floor(4 + torch.log2(size / 224 + 1e-8))  # 4 is stride 16
    finest = int(math.log2(strides[0]))
    return (level - finest).clamp(0, len(strides) - 1).long()
