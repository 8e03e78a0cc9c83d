"""Truths of rectangles for networks that find objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segatlas.structures import InstancesTarget


def rectangles(*objects: tuple[int, ...], size: tuple[int, int], crowd: Sequence[int] = ()) -> InstancesTarget:
    """Return a truth of rectangles (class, top, left, bottom, right); `crowd` says which were not told apart."""
    masks = np.zeros((len(objects), *size), bool)
    for mask, (_, top, left, bottom, right) in zip(masks, objects, strict=True):
        mask[top:bottom, left:right] = True
    kinds = np.array([one[0] for one in objects], np.int64)
    return InstancesTarget(masks, kinds, np.array([index in crowd for index in range(len(objects))], bool))
