"""Which boxes stand for which true objects, and which of them a loss is taken of.

Letters: B boxes, M objects, N batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from segatlas.labels import IGNORE
from segatlas.ops.boxes import areas, boxes_of_masks, clipped, intersections, ious
from segatlas.structures import InstancesTarget, SegmentsTarget

BACKGROUND, IGNORED = -1, -2
"""What stands for no object, and for a box that is not judged, where else is the index of one."""

INSIDE_CROWD = 0.5
"""A box that has so much of its area in objects that were not told apart is no background."""


POINTS_AT_ONCE = 4096
"""Points that are compared with all objects together, for thousands of objects fit into memory so."""


class TrueObjects(NamedTuple):
    """The objects of one image that are told apart, and the places of those that are not.

    boxes: (M, 4) float. classes: (M,) int64. masks: (M, H, W) bool. crowd: (C, 4) float, boxes in which nothing is
    judged that stands for no object.
    """

    boxes: Tensor
    classes: Tensor
    masks: Tensor
    crowd: Tensor


def true_objects(target: InstancesTarget | SegmentsTarget, device: torch.device | str) -> TrueObjects:
    """Return the objects of a target; those without a pixel are left out, of segments stuff too."""
    if isinstance(target, SegmentsTarget):
        target = things_of(target)
    masks = torch.as_tensor(target.masks, device=device).bool()
    classes = torch.as_tensor(target.classes, device=device).long()
    crowd = torch.as_tensor(target.crowd, device=device).bool()
    boxes, there = boxes_of_masks(masks)
    alone = there & ~crowd
    return TrueObjects(boxes[alone], classes[alone], masks[alone], boxes[there & crowd])


def semantic_of(target: SegmentsTarget, place: Sequence[int], device: torch.device | str) -> Tensor:
    """Return the class of each pixel (H, W) uint8 as `place` numbers the classes; 255 in ignored pixels and crowds."""
    ids = torch.as_tensor(target.ids, device=device).long()
    classes = torch.as_tensor(target.classes, device=device).long()
    crowd = torch.as_tensor(target.crowd, device=device).bool()
    table = torch.tensor(place, device=device)[classes] if len(classes) else classes
    table = torch.cat([torch.where(crowd, IGNORE, table), table.new_full((1,), IGNORE)])
    return table[torch.where(ids < 0, len(classes), ids)].to(torch.uint8)


def things_of(target: SegmentsTarget) -> InstancesTarget:
    """Return those segments that are things as objects."""
    ids = torch.as_tensor(target.ids)
    things = torch.as_tensor(target.things, device=ids.device).bool()
    rows = things.nonzero()[:, 0]
    masks = ids.unsqueeze(0) == rows[:, None, None]
    classes = torch.as_tensor(target.classes, device=ids.device)[things]
    return InstancesTarget(masks, classes, torch.as_tensor(target.crowd, device=ids.device)[things])


def match(
    boxes: Tensor,
    objects: TrueObjects,
    size: Sequence[int],
    *,
    background_below: float,
    object_from: float,
    best_from: float | None = None,
    best_own: bool = False,
) -> Tensor:
    """Return (B,) the object that each box stands for, BACKGROUND, or IGNORED.

    A box stands for the object that it overlaps most, where their IoU is `object_from` or more; it is background where
    that is less than `background_below`. best_from: an object's best boxes that overlap it, and by so much, stand for
    an object in any case, for that which they overlap most; best_own: for this one, for the last where it is several.
    Background inside a crowd, or in the padding beyond an image of `size` (H, W), is not judged.
    """
    found = boxes.new_full((len(boxes),), BACKGROUND, dtype=torch.long)
    if len(objects.boxes):
        overlap = ious(boxes, objects.boxes)
        best, index = overlap.max(dim=1)
        found = torch.where(best >= object_from, index, torch.where(best < background_below, BACKGROUND, IGNORED))
        if best_from is not None and len(boxes):
            most = overlap.amax(dim=0)
            is_best = (overlap == most) & (most > 0) & (most >= best_from)
            last = len(objects.boxes) - 1 - is_best.flip(1).int().argmax(dim=1)
            found = torch.where(is_best.any(dim=1), last if best_own else index, found)
    if len(objects.crowd):
        shown = clipped(boxes, (size[0], size[1]))
        inside = (intersections(shown, objects.crowd) / areas(shown)[:, None].clamp(min=1e-6)).amax(dim=1)
        found = torch.where((found == BACKGROUND) & (inside >= INSIDE_CROWD), IGNORED, found)
    return torch.where((found == BACKGROUND) & beyond(boxes, size), IGNORED, found)


def match_points(
    points: Tensor,
    reach: Tensor,
    bounds: Tensor,
    objects: TrueObjects,
    size: Sequence[int],
) -> Tensor:
    """Return (T,) the object that each point stands for, BACKGROUND, or IGNORED (Tian et al. 2019, section 3).

    A point stands for an object where it lies inside its box and, in x and in y, nearer than `reach` to the middle of
    its mask, and where the farthest side of the box is as far away as `bounds` say. Of several it takes the one of the
    smallest box. Background inside a crowd, or in the padding beyond an image of `size` (H, W), is not judged.

    Args:
        points: (T, 2), x and y in pixels.
        reach: (T,) in pixels.
        bounds: (T, 2) least and largest distance in pixels, both included.
        objects: M of them.
        size: of the image.
    """
    parts = zip(points.split(POINTS_AT_ONCE), reach.split(POINTS_AT_ONCE), bounds.split(POINTS_AT_ONCE), strict=True)
    middles, order = middles_of(objects.masks), areas(objects.boxes).argsort(stable=True)
    found = torch.cat([_owners(*part, objects.boxes[order], middles[order], order) for part in parts])
    if len(objects.crowd):
        x, y = points[:, None].unbind(2)
        left, top, right, bottom = objects.crowd.unbind(1)
        inside = ((x >= left) & (x < right) & (y >= top) & (y < bottom)).any(dim=1)
        found = torch.where((found == BACKGROUND) & inside, IGNORED, found)
    return torch.where((found == BACKGROUND) & beyond(points.repeat(1, 2), size), IGNORED, found)


def _owners(points: Tensor, reach: Tensor, bounds: Tensor, boxes: Tensor, middles: Tensor, numbers: Tensor) -> Tensor:
    """Return (T,) the number of the first of boxes (M, 4) that each point fits, BACKGROUND where there is none."""
    if not len(boxes):
        return torch.full((len(points),), BACKGROUND, device=points.device)
    sides = distances_to_sides(points[:, None], boxes[None])  # (T, M, 4)
    near = (points[:, None] - middles[None]).abs().amax(dim=2) < reach[:, None]
    farthest = sides.amax(dim=2)
    fits = near & (sides.amin(dim=2) > 0) & (farthest >= bounds[:, :1]) & (farthest <= bounds[:, 1:])
    return torch.where(fits.any(dim=1), numbers[fits.int().argmax(dim=1)], BACKGROUND)


def distances_to_sides(points: Tensor, boxes: Tensor) -> Tensor:
    """Return how far points (..., 2) lie inside the sides of boxes (..., 4): left, top, right, bottom (..., 4)."""
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def middles_of(masks: Tensor) -> Tensor:
    """Return the mean column and row (M, 2) of the pixels of masks (M, H, W), which hold one at least."""
    sums = []
    for lines in (masks.sum(dim=1), masks.sum(dim=2)):
        index = torch.arange(lines.shape[1], device=masks.device)
        sums.append((lines * index).sum(dim=1) / lines.sum(dim=1).clamp(min=1))
    return torch.stack(sums, dim=1)


def drawn(matched: Tensor, count: int, objects: float) -> tuple[Tensor, Tensor]:
    """Draw boxes for a loss from torch's generator: indices of objects' and of background's.

    Args:
        matched: (B,), see `match`.
        count: drawn together; fewer where there are fewer.
        objects: fraction of objects' boxes at most; background fills up.
    """
    positive = (matched >= 0).nonzero()[:, 0]
    negative = (matched == BACKGROUND).nonzero()[:, 0]
    positives = min(len(positive), int(count * objects))
    negatives = min(len(negative), count - positives)
    chosen = [
        of[torch.randperm(len(of), device=of.device)[:wanted]]
        for of, wanted in ((positive, positives), (negative, negatives))
    ]
    return chosen[0], chosen[1]


def beyond(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Tell (B,) which boxes have their centre outside an image of `size` (H, W)."""
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    return (x >= size[1]) | (y >= size[0]) | (x < 0) | (y < 0)
