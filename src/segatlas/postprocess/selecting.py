"""Which of the objects found in an image stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from segatlas.config.objects import ObjectRule
from segatlas.structures import Instance


def selected(objects: Sequence[Instance], rule: ObjectRule) -> tuple[Instance, ...]:
    """Return the objects that a rule's `score`, `overlap`, `class_agnostic` and `top` leave, by falling score."""
    found = sorted((one for one in objects if one.score >= rule.score), key=lambda one: -one.score)
    if rule.overlap is not None and found:
        kept = suppressed(
            np.array([one.box for one in found], np.float64),
            np.array([0 if rule.class_agnostic else one.class_index for one in found]),
            rule.overlap,
        )
        found = [found[index] for index in kept]
    return tuple(found[: rule.top])


def suppressed(boxes: np.ndarray, kinds: np.ndarray, overlap: float) -> list[int]:
    """Return which boxes (D, 4), the best first, stay where none may overlap a better one of its kind by more."""
    low, high = boxes[:, :2], boxes[:, 2:]
    areas = np.prod(np.maximum(high - low, 0), axis=1)
    gone = np.zeros(len(boxes), bool)
    kept = []
    for index in range(len(boxes)):
        if gone[index]:
            continue
        kept.append(index)
        sides = np.minimum(high[index], high[index + 1 :]) - np.maximum(low[index], low[index + 1 :])
        common = np.prod(np.maximum(sides, 0), axis=1)
        whole = areas[index] + areas[index + 1 :] - common
        gone[index + 1 :] |= (common > overlap * whole) & (kinds[index + 1 :] == kinds[index])
    return kept
