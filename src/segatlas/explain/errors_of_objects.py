"""What kind of error each wrong object is; every true or predicted one that is not right is in exactly one error.

An error holds a true object, a predicted one, or both. In this order, and each object once:

1. Found: by falling score, a predicted object takes the free true one of its class with the highest IoU of at least
   0.5. With 0.75 or more it is right; less is "shifted" where a move makes it fit, see `placed.is_shifted`, else
   "ragged edge".
2. confused class: of what is left, a true and a predicted object of different classes with an IoU of at least 0.5, the
   highest first.
3. shifted: a true and a predicted object of one class where a move makes the one fit the other.
4. ragged edge: a true and a predicted object of one class with an IoU of at least 0.1, the highest first.
5. missed object: a true object that is left.
6. extra object: a predicted one that is left, a second one on the same true object too.

What lies by half on a crowd is not judged, and crowds are not missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from segatlas.explain.errors_of_pixels import CONFUSED, EXTRA, MISSED, RAGGED, SHIFTED
from segatlas.explain.placed import PlacedMask, is_shifted
from segatlas.metrics.object_pairs import TrueMasks, objects_of
from segatlas.structures import InstancesTarget, Result, Rle, SegmentsTarget
from segatlas.structures.rle import MaskRuns, pair_ious

FOUND_IOU, RIGHT_IOU, TOUCHING_IOU = 0.5, 0.75, 0.1


class FoundObjects(NamedTuple):
    """Objects of a prediction by falling score: masks, classes."""

    masks: Sequence[Rle]
    kinds: np.ndarray


class ObjectError(NamedTuple):
    """One error. kind: of KINDS. true, found: numbers of the objects, None = there is none. iou: of the two."""

    kind: str
    true: int | None
    found: int | None
    iou: float


def true_objects(target: InstancesTarget | SegmentsTarget) -> TrueMasks:
    """Return the objects of a truth; of segments all, stuff too."""
    if isinstance(target, InstancesTarget):
        return objects_of(target)
    ids, rows = np.asarray(target.ids), range(len(np.asarray(target.classes)))
    masks = [Rle.of(ids == row) for row in rows]
    return TrueMasks(masks, np.asarray(target.classes).astype(np.int64), np.asarray(target.crowd).astype(bool))


def found_objects(result: Result, target: InstancesTarget | SegmentsTarget, score: float) -> FoundObjects:
    """Return the objects of a result of the truth's kind that are at least so sure; what has no score is sure."""
    if isinstance(target, InstancesTarget):
        objects = sorted((one for one in result.instances if one.score >= score), key=lambda one: -one.score)
        return FoundObjects([one.rle for one in objects], np.array([one.class_index for one in objects], np.int64))
    judged = np.asarray(target.ids) >= 0
    segments = [one for one in result.panoptic.segments if one.score is None or one.score >= score]
    segments.sort(key=lambda one: -1.0 if one.score is None else -one.score)
    masks = [Rle.of((result.panoptic.ids == one.id) & judged) for one in segments]
    kept = [number for number, mask in enumerate(masks) if mask.area]
    classes = [segments[number].class_index for number in kept]
    return FoundObjects([masks[number] for number in kept], np.array(classes, np.int64))


def object_errors(true: TrueMasks, found: FoundObjects) -> tuple[list[ObjectError], int]:
    """Return all errors, and how many true objects are right."""
    count, total = len(found.masks), len(true.masks)
    rows, columns = np.divmod(np.arange(count * total), max(total, 1))
    shared = pair_ious(MaskRuns(found.masks), rows, MaskRuns(true.masks), columns, true.crowd)
    iou = shared.reshape(count, total)
    same = found.kinds[:, None] == true.kinds[None] if count and total else np.zeros((count, total), bool)
    free = np.ones(count, bool), ~true.crowd.astype(bool)
    errors, right = [], 0
    for row in range(count):
        own = np.where(same[row] & free[1], iou[row], -1.0)
        best = int(own.argmax()) if own.size else -1
        if best < 0 or own[best] < FOUND_IOU:
            continue
        free[0][row] = free[1][best] = False
        if own[best] >= RIGHT_IOU:
            right += 1
            continue
        kind = SHIFTED if is_shifted(_placed(true.masks[best]), _placed(found.masks[row])) else RAGGED
        errors.append(ObjectError(kind, best, row, float(own[best])))
    crowded = (iou[:, true.crowd.astype(bool)] >= FOUND_IOU).any(axis=1) if count else np.zeros(0, bool)
    free[0][crowded] = False
    for row, column in _falling(iou, ~same & (iou >= FOUND_IOU), free):
        errors.append(ObjectError(CONFUSED, column, row, float(iou[row, column])))
    for row, column in _falling(iou, same, free, shifted=(true, found)):
        errors.append(ObjectError(SHIFTED, column, row, float(iou[row, column])))
    for row, column in _falling(iou, same & (iou >= TOUCHING_IOU), free):
        errors.append(ObjectError(RAGGED, column, row, float(iou[row, column])))
    errors += [ObjectError(MISSED, column, None, 0.0) for column in np.flatnonzero(free[1]).tolist()]
    errors += [ObjectError(EXTRA, None, row, 0.0) for row in np.flatnonzero(free[0]).tolist()]
    return errors, right


def _falling(
    iou: np.ndarray,
    allowed: np.ndarray,
    free: tuple[np.ndarray, np.ndarray],
    shifted: tuple[TrueMasks, FoundObjects] | None = None,
) -> Iterator[tuple[int, int]]:
    """Yield allowed pairs of free objects, the highest IoU first, and mark both as taken.

    shifted: take only those that are each other in another place.
    """
    places = np.argwhere(allowed & free[0][:, None] & free[1][None])
    order = np.argsort(-iou[places[:, 0], places[:, 1]], kind="stable")
    for row, column in places[order].tolist():
        if not (free[0][row] and free[1][column]):
            continue
        if shifted is not None:
            true, found = shifted
            if not is_shifted(_placed(true.masks[column]), _placed(found.masks[row])):
                continue
        free[0][row] = free[1][column] = False
        yield row, column


def _placed(mask: Rle) -> PlacedMask:
    top, left, *_ = mask.box
    return PlacedMask(mask.part(), top, left, mask.size)
