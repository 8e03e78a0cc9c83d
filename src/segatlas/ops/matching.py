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
    best_always: bool,
) -> Tensor:
    """Return (B,) the object that each box stands for, BACKGROUND, or IGNORED.

    A box stands for the object that it overlaps most, where their IoU is `object_from` or more; it is background where
    that is less than `background_below`. best_always: an object's best boxes stand for it however little they overlap.
    Background inside a crowd, or in the padding beyond an image of `size` (H, W), is not judged.
    """
    found = boxes.new_full((len(boxes),), BACKGROUND, dtype=torch.long)
    if len(objects.boxes):
        overlap = ious(boxes, objects.boxes)
        best, index = overlap.max(dim=1)
        found = torch.where(best >= object_from, index, torch.where(best < background_below, BACKGROUND, IGNORED))
        if best_always:
            most = overlap.amax(dim=0)
            is_best = ((overlap == most) & (most > 0)).any(dim=1)
            found = torch.where(is_best, index, found)
    if len(objects.crowd):
        shown = clipped(boxes, (size[0], size[1]))
        inside = (intersections(shown, objects.crowd) / areas(shown)[:, None].clamp(min=1e-6)).amax(dim=1)
        found = torch.where((found == BACKGROUND) & (inside >= INSIDE_CROWD), IGNORED, found)
    return torch.where((found == BACKGROUND) & beyond(boxes, size), IGNORED, found)


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
