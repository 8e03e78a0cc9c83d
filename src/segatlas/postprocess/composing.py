"""From objects and a map of stuff to segments: the better object is on top, stuff fills what is left.

Kirillov et al., "Panoptic Feature Pyramid Networks", CVPR 2019. Every segment has an id of its own, from 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segatlas.config.objects import ObjectRule
from segatlas.structures import Instance, Panoptic, Segment

Box = tuple[int, int, int, int]


def composed(objects: Sequence[Instance], stuff: np.ndarray, ignored: int, rule: ObjectRule) -> Panoptic:
    """Return the segments of an image.

    Args:
        objects: by falling score.
        stuff: (H, W) class of each pixel.
        ignored: the value of pixels of no stuff there.
        rule: its second half is used.
    """
    ids = np.zeros(stuff.shape, np.int32)
    segments: list[Segment] = []
    for one in objects:
        if one.score < rule.things_score or not one.area:
            continue
        top, left, bottom, right = one.rle.box
        inside, under = one.rle.part(), ids[top:bottom, left:right]
        free = inside & (under == 0)
        area = int(np.count_nonzero(free))
        if (one.area - area) / (one.area + rule.things_margin) > rule.things_overlap or not area:
            continue
        number = len(segments) + 1
        under[free] = number
        box = shifted(box_of(free), top, left)
        segments.append(
            Segment(id=number, class_index=one.class_index, is_thing=True, score=one.score, area=area, box=box)
        )
    left_over = np.where(ids == 0, stuff, ignored)
    for kind in np.unique(left_over).tolist():
        inside = left_over == kind
        area = int(np.count_nonzero(inside))
        if kind == ignored or area < rule.stuff_area:
            continue
        number = len(segments) + 1
        ids[inside] = number
        segments.append(Segment(id=number, class_index=kind, is_thing=False, score=None, area=area, box=box_of(inside)))
    return Panoptic(ids=ids, segments=tuple(segments))


def box_of(inside: np.ndarray) -> Box:
    """Return (top, left, bottom, right) of a (H, W) mask that has pixels."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def shifted(box: Box, down: int, right: int) -> Box:
    """Return the box of a part in the whole."""
    return box[0] + down, box[1] + right, box[2] + down, box[3] + right
