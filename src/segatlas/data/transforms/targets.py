"""One placement moves a truth of any type: each pixel takes what the nearest source pixel has."""

from __future__ import annotations

import numpy as np

from segatlas.data.transforms.geometry import Placement, Size
from segatlas.data.transforms.warp import warp_label
from segatlas.structures import IGNORE, InstancesTarget, SegmentsTarget, SemanticTarget, Target

NO_SEGMENT = -1
"""Of a `SegmentsTarget`: outside the image, and where the truth says nothing."""


def warp_target(target: Target, placement: Placement) -> Target:
    """Return the truth that `placement` makes of one.

    Labels are padded with 255, segment ids with -1. Segments and instances of which no pixel is left are dropped.
    """
    if isinstance(target, SemanticTarget):
        return target._replace(labels=warp_label(np.asarray(target.labels), placement, IGNORE))
    if isinstance(target, SegmentsTarget):
        return visible(target._replace(ids=warp_label(np.asarray(target.ids), placement, NO_SEGMENT)))
    masks = np.asarray(target.masks)
    moved = np.zeros((len(masks), *placement.size), bool)
    for place, mask in zip(moved, masks, strict=True):
        place[...] = warp_label(mask.view(np.uint8), placement, 0)
    left = moved.any(axis=(1, 2))
    return InstancesTarget(
        moved[left], np.asarray(target.classes)[left], np.asarray(target.crowd)[left], _padding(target, placement)
    )


def _padding(target: InstancesTarget, placement: Placement) -> np.ndarray | None:
    """Return what of the placed image lies beyond the source, (H, W) bool; None where nothing does."""
    before = np.zeros(size_of_target(target), np.uint8) if target.padding is None else np.asarray(target.padding)
    beyond = warp_label(before.view(np.uint8), placement, 1).astype(bool)
    return beyond if beyond.any() else None


def visible(target: SegmentsTarget) -> SegmentsTarget:
    """Return the segments that have a pixel, in their order."""
    ids = np.asarray(target.ids)
    count = len(np.asarray(target.classes))
    seen = np.bincount(ids[ids >= 0], minlength=count) > 0
    if seen.all():
        return target
    rows = np.append(np.where(seen, np.cumsum(seen) - 1, NO_SEGMENT), NO_SEGMENT).astype(ids.dtype)  # the last is of -1
    return SegmentsTarget(rows[ids], *(np.asarray(table)[seen] for table in target[1:]))


def size_of_target(target: Target) -> Size:
    """Return the (height, width) that a truth covers."""
    if isinstance(target, SemanticTarget):
        shape = np.shape(target.labels)
    else:
        shape = np.shape(target.ids) if isinstance(target, SegmentsTarget) else np.shape(target.masks)[1:]
    return shape[0], shape[1]
