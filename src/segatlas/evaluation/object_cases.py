"""Single objects that say most about a model: found best and worst, missed, and made up, over a whole split.

A predicted object finds the free true one of its class with the highest IoU of masks of at least 0.5, by falling score,
as average precision counts it at that IoU. What lies by half on a crowd is neither found nor made up.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segatlas.metrics.metric import Prediction
from segatlas.metrics.object_pairs import objects_of
from segatlas.structures import InstancesTarget, Rle, SegmentsTarget
from segatlas.structures.rle import MaskRuns, pair_ious

IOU = 0.5
KEPT = 6
"""Objects of each kind that are kept."""

BEST, WORST, MISSED, FALSE = KINDS = ("best", "worst", "missed", "false")
TITLES = {
    BEST: "Objects found best, by the IoU of their masks",
    WORST: "Objects found worst, by the IoU of their masks",
    MISSED: "Objects missed, the largest",
    FALSE: "Objects that are not there, the surest",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjectCase:
    """One object. kind: of KINDS. key: of its image. name: of its class.

    iou: of the two masks. near: of a missed or false object, the class of the nearest one on the other side, None =
    there is none. score: of the predicted object, None where it is missed. truth, found: the masks, one of them that of
    the nearest one; None where there is none.
    """

    kind: str
    key: str
    name: str
    iou: float
    score: float | None
    near: str | None
    truth: Rle | None = field(default=None, repr=False)
    found: Rle | None = field(default=None, repr=False)

    @property
    def mask(self) -> Rle:
        """The object's own mask, the true one where it is there."""
        mask = self.found if self.kind == FALSE else self.truth
        assert mask is not None
        return mask

    @property
    def area(self) -> int:
        """Pixels of it."""
        return self.mask.area

    @property
    def caption(self) -> str:
        """What is to be said of it."""
        score = "" if self.score is None else f", score {self.score:.2f}"
        if self.kind in (BEST, WORST):
            return f"{self.key}: {self.name}{score}, IoU {self.iou:.2f}"
        near = "nothing near it" if self.near is None else f"nearest: {self.near}, IoU {self.iou:.2f}"
        return f"{self.key}: {self.name}, {self.area} pixels{score}; {near}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; box: top, left, bottom, right."""
        facts = {"key": self.key, "class": self.name, "iou": self.iou, "score": self.score, "near": self.near}
        return {**facts, "area": self.area, "box": list(self.mask.box)}


class ObjectCases:
    """Looks at one image at a time and keeps KEPT objects of each kind. classes: names."""

    def __init__(self, classes: Sequence[str]):
        self.classes = tuple(classes)
        self._kept: dict[str, list[tuple[float, int, ObjectCase]]] = {kind: [] for kind in KINDS}
        self._seen = 0

    def look(self, key: str, result: Prediction, target: InstancesTarget | SegmentsTarget) -> None:
        """Take the objects of an image into account."""
        true, objects = objects_of(target), sorted(result.instances, key=lambda one: -one.score)
        masks = [one.rle for one in objects]
        rows, columns = np.divmod(np.arange(len(masks) * len(true.masks)), max(len(true.masks), 1))
        shared = pair_ious(MaskRuns(masks), rows, MaskRuns(true.masks), columns, true.crowd)
        iou = shared.reshape(len(masks), len(true.masks))
        names = [self.classes[one.class_index] for one in objects]
        true_names = [self.classes[kind] for kind in true.kinds.tolist()]
        taken = np.zeros(len(true.masks), bool)
        for row, one in enumerate(objects):
            own = np.where((true.kinds == one.class_index) & ~taken & ~true.crowd, iou[row], -1.0)
            best = int(own.argmax()) if own.size else -1
            facts = {"key": key, "name": names[row], "score": one.score, "found": masks[row]}
            if best >= 0 and own[best] >= IOU:
                taken[best] = True
                facts |= {"truth": true.masks[best], "iou": float(own[best]), "near": None}
                self._keep(ObjectCase(kind=BEST, **facts), float(own[best]))
                self._keep(ObjectCase(kind=WORST, **facts), -float(own[best]))
            elif not (iou[row][true.crowd] >= IOU).any():
                near = _nearest(np.where(true.crowd, 0.0, iou[row]), true_names, true.masks)
                self._keep(ObjectCase(kind=FALSE, **facts, truth=near[2], iou=near[0], near=near[1]), one.score)
        for column in np.flatnonzero(~taken & ~true.crowd).tolist():
            facts = {"key": key, "name": true_names[column], "score": None, "truth": true.masks[column]}
            near = _nearest(iou[:, column], names, masks)
            case = ObjectCase(kind=MISSED, **facts, found=near[2], iou=near[0], near=near[1])
            self._keep(case, float(case.area))

    def _keep(self, case: ObjectCase, value: float) -> None:
        self._seen += 1
        heap = self._kept[case.kind]
        heapq.heappush(heap, (value, -self._seen, case))  # of equal ones the first stays
        if len(heap) > KEPT:
            heapq.heappop(heap)

    def cases(self) -> dict[str, tuple[ObjectCase, ...]]:
        """Return what was kept, by kind, the most telling first."""
        return {kind: tuple(case for *_, case in sorted(kept, reverse=True)) for kind, kept in self._kept.items()}


def _nearest(ious: np.ndarray, names: Sequence[str], masks: Sequence[Rle]) -> tuple[float, str | None, Rle | None]:
    """Return IoU, class and mask of the object with the highest IoU; nothing where none is above 0."""
    place = int(ious.argmax()) if ious.size else -1
    if place < 0 or ious[place] <= 0:
        return 0.0, None, None
    return float(ious[place]), names[place], masks[place]
