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

    Labels are padded with 255. Segment ids are padded with -1; the tables stay, also where no pixel of a segment is
    left. Instances that vanish are dropped.
    """
    if isinstance(target, SemanticTarget):
        return SemanticTarget(warp_label(np.asarray(target.labels), placement, IGNORE))
    if isinstance(target, SegmentsTarget):
        return target._replace(ids=warp_label(np.asarray(target.ids), placement, NO_SEGMENT))
    masks = np.asarray(target.masks)
    moved = np.zeros((len(masks), *placement.size), bool)
    for place, mask in zip(moved, masks, strict=True):
        place[...] = warp_label(mask.view(np.uint8), placement, 0)
    left = moved.any(axis=(1, 2))
    return InstancesTarget(moved[left], np.asarray(target.classes)[left], np.asarray(target.crowd)[left])


def size_of_target(target: Target) -> Size:
    """Return the (height, width) that a truth covers."""
    if isinstance(target, SemanticTarget):
        shape = np.shape(target.labels)
    else:
        shape = np.shape(target.ids) if isinstance(target, SegmentsTarget) else np.shape(target.masks)[1:]
    return shape[0], shape[1]
