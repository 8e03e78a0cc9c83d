"""What kind of error each wrong pixel of a label map is; every one is of exactly one kind.

Regions are connected pixels of one class (8 neighbours) of the truth, and of the prediction. A wrong pixel lies in one
region of each. The first that holds is its kind:

1. confused class: the two regions have an IoU of at least 0.5, and differ in class.
2. shifted: one of them is a region of the same class on the other side in another place, see `placed.is_shifted`.
3. missed object: of the true region less than a quarter is predicted right, and half of it or more has no pixel
   predicted as its class within `edge`.
4. extra object: of the predicted region less than a quarter is right, and half of it or more has no pixel of its class
   in the truth within `edge`.
5. ragged edge: the predicted class is the true one at most `edge` pixels away.
6. confused class: anything else, such as a part of a region that is taken for another class.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from segatlas.explain.placed import PlacedMask, is_shifted
from segatlas.labels import IGNORE

CONFUSED, MISSED, EXTRA, SHIFTED, RAGGED = KINDS = ("confused", "missed", "extra", "shifted", "ragged")
TITLES = {
    CONFUSED: "confused class",
    MISSED: "missed object",
    EXTRA: "extra object",
    SHIFTED: "shifted",
    RAGGED: "ragged edge",
}
RIGHT = 255
"""In a map of kinds: right, or not judged."""

SAME_IOU, FOUND = 0.5, 0.25
SMALLEST_SHIFTED = 9
"""Pixels of the smallest region that may be shifted: smaller ones have no form to be known by."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Regions:
    """Connected regions of a label map.

    ids: (H, W) int32, -1 = none. classes: (n,). boxes: (n, 4), top, left, bottom, right, the last two exclusive.
    """

    ids: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray

    @cached_property
    def areas(self) -> np.ndarray:
        """Pixels of each."""
        found: np.ndarray = np.bincount(self.ids[self.ids >= 0], minlength=len(self.classes))
        return found

    def placed(self, index: int) -> PlacedMask:
        """Return one of them."""
        top, left, bottom, right = self.boxes[index].tolist()
        height, width = self.ids.shape
        return PlacedMask(self.ids[top:bottom, left:right] == index, top, left, (height, width))


def regions_of(labels: np.ndarray) -> Regions:
    """Return the connected regions of a (H, W) uint8 map, 255 left out."""
    import cv2

    ids = np.full(labels.shape, -1, np.int32)
    classes: list[int] = []
    boxes: list[np.ndarray] = []
    for value in np.unique(labels).tolist():
        if value == IGNORE:
            continue
        count, parts, facts, _ = cv2.connectedComponentsWithStats((labels == value).astype(np.uint8), connectivity=8)
        inside = parts > 0
        ids[inside] = parts[inside] - 1 + len(classes)
        classes += [value] * (count - 1)
        left, top, width, height = facts[1:, :4].T
        boxes.append(np.stack([top, left, top + height, left + width], axis=1))
    return Regions(
        ids=ids,
        classes=np.array(classes, np.int64),
        boxes=np.concatenate(boxes) if boxes else np.zeros((0, 4), np.int64),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pairs:
    """True regions with predicted ones that share a pixel. true, found: (Q,) indices. shared: (Q,) pixels."""

    true: np.ndarray
    found: np.ndarray
    shared: np.ndarray


def pixel_errors(label: np.ndarray, prediction: np.ndarray, edge: int) -> np.ndarray:
    """Return the kind of error of each pixel: (H, W) uint8, an index of KINDS, or RIGHT.

    Args:
        label: (H, W) uint8: 0..K-1, 255 where nothing is judged.
        prediction: (H, W) uint8, 255 where the label is.
        edge: pixels that an edge may be off.
    """
    kinds = np.full(label.shape, RIGHT, np.uint8)
    wrong = (label != prediction) & (label != IGNORE)
    if not wrong.any():
        return kinds
    true, found = regions_of(label), regions_of(np.where(label == IGNORE, np.uint8(IGNORE), prediction))
    pairs = _pairs(true, found)
    rows, columns = true.ids[wrong], found.ids[wrong]
    kind = np.full(len(rows), KINDS.index(CONFUSED), np.uint8)
    kind[_near_its_class(label, prediction, wrong, edge)[wrong]] = KINDS.index(RAGGED)
    extra = _lost(found, true, pairs.found, pairs, edge, label)
    missed = _lost(true, found, pairs.true, pairs, edge, prediction)
    kind[extra[columns]] = KINDS.index(EXTRA)
    kind[missed[rows]] = KINDS.index(MISSED)
    shifted_true, shifted_found = _shifted(true, found, pairs)
    kind[shifted_true[rows] | shifted_found[columns]] = KINDS.index(SHIFTED)
    kind[_confused(true, found, pairs, rows, columns)] = KINDS.index(CONFUSED)
    kinds[wrong] = kind
    return kinds


def _pairs(true: Regions, found: Regions) -> _Pairs:
    judged = true.ids >= 0
    width = max(len(found.classes), 1)
    codes, shared = np.unique(true.ids[judged].astype(np.int64) * width + found.ids[judged], return_counts=True)
    return _Pairs(true=codes // width, found=codes % width, shared=shared)


def _confused(true: Regions, found: Regions, pairs: _Pairs, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return which wrong pixels lie in two regions that are the same but for their class."""
    together = true.areas[pairs.true] + found.areas[pairs.found] - pairs.shared
    same = (true.classes[pairs.true] != found.classes[pairs.found]) & (pairs.shared >= SAME_IOU * together)
    width = len(found.classes)
    chosen = pairs.true[same] * width + pairs.found[same]
    return np.isin(rows.astype(np.int64) * width + columns, chosen)


def _lost(
    own: Regions, other: Regions, place: np.ndarray, pairs: _Pairs, edge: int, other_labels: np.ndarray
) -> np.ndarray:
    """Return which regions of one side are not on the other: (n,) bool. place: the pairs' regions of that side."""
    right = np.zeros(len(own.classes), np.int64)
    alike = true_alike(own, other, pairs, place)
    np.add.at(right, place[alike], pairs.shared[alike])
    lost = right < FOUND * own.areas
    for value in np.unique(own.classes[lost]).tolist():
        near = _grown(other_labels == value, edge)
        of_class = np.flatnonzero(lost & (own.classes == value))
        inside = np.isin(own.ids, of_class)
        by = np.bincount(own.ids[inside & near], minlength=len(lost))
        lost[of_class] &= 2 * by[of_class] <= own.areas[of_class]
    return lost


def true_alike(own: Regions, other: Regions, pairs: _Pairs, place: np.ndarray) -> np.ndarray:
    """Return which pairs have one class. place: of the side that `own` is."""
    theirs = pairs.found if place is pairs.true else pairs.true
    alike: np.ndarray = own.classes[place] == other.classes[theirs]
    return alike


def _shifted(true: Regions, found: Regions, pairs: _Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Return which regions of the truth, and which of the prediction, are each other in another place."""
    moved = np.zeros(len(true.classes), bool), np.zeros(len(found.classes), bool)
    alike = true.classes[pairs.true] == found.classes[pairs.found]
    shared = {
        (t, f): int(n) for t, f, n in zip(pairs.true[alike], pairs.found[alike], pairs.shared[alike], strict=True)
    }
    for index in np.flatnonzero(true.areas >= SMALLEST_SHIFTED).tolist():
        area = true.areas[index]
        near = (found.classes == true.classes[index]) & (found.areas <= 2 * area) & (2 * found.areas >= area)
        near &= ~moved[1] & _boxes_near(true.boxes[index], found.boxes)
        places = np.flatnonzero(near).tolist()
        places.sort(key=lambda place: -shared.get((index, place), 0))
        for place in places[:3]:
            if shared.get((index, place), 0) == area == found.areas[place]:
                break
            if is_shifted(true.placed(index), found.placed(place)):
                moved[0][index] = moved[1][place] = True
                break
    return moved


def _boxes_near(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return which boxes are at most the longer side of the first away from it, along both axes."""
    reach = max(box[2] - box[0], box[3] - box[1])
    near: np.ndarray = np.ones(len(boxes), bool)
    for axis in range(2):
        near &= (boxes[:, axis] < box[axis + 2] + reach) & (boxes[:, axis + 2] > box[axis] - reach)
    return near


def _near_its_class(label: np.ndarray, prediction: np.ndarray, wrong: np.ndarray, edge: int) -> np.ndarray:
    """Return which wrong pixels are predicted as a class that is true at most `edge` pixels away."""
    near = np.zeros(label.shape, bool)
    for value in np.unique(prediction[wrong]).tolist():
        near |= wrong & (prediction == value) & _grown(label == value, edge)
    return near


def _grown(mask: np.ndarray, reach: int) -> np.ndarray:
    """Return where a mask has a pixel at most `reach` rows and columns away."""
    import cv2

    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    found: np.ndarray = cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)
    return found
