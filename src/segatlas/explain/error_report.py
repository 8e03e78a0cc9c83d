"""Errors over a dataset by their kind: how many, of which classes, and the images that show each best."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from segatlas.errors import DataError, UsageError
from segatlas.evaluation import Evaluation
from segatlas.explain.errors_of_objects import found_objects, object_errors, true_objects
from segatlas.explain.errors_of_pixels import EXTRA, KINDS, RIGHT, TITLES, pixel_errors
from segatlas.metrics.boundary import boundary_reach
from segatlas.metrics.label_maps import label_maps
from segatlas.metrics.metric import Prediction
from segatlas.structures import InstancesTarget, SegmentsTarget, SemanticTarget
from segatlas.tasks import TASKS

EDGE, SCORE, KEPT = 0.01, 0.5, 6
"""Width of an edge as a fraction of the image's diagonal; surest objects alone are judged; cases a kind."""

OBJECTS = {
    "confused": "a true and a predicted object of different classes with an IoU of at least 0.5",
    "missed": "a true object that no error or match above takes",
    "extra": "a predicted object that no error or match above takes, a second one on the same true object too",
    "shifted": "a true and a predicted object of one class with an IoU below 0.75, where moving one by whole pixels, "
    "no further than its longer side, gives an IoU of at least 0.5 and takes away half of the pixels that differ",
    "ragged": "any other true and predicted object of one class with an IoU of at least 0.1 and less than 0.75",
}
PIXELS = {
    "confused": "the true and the predicted region have an IoU of at least 0.5 and differ in class; or no other kind",
    "missed": "of the true region less than a quarter is predicted right, and at least half of it is further than the "
    "edge from any pixel predicted as its class",
    "extra": "of the predicted region less than a quarter is right, and at least half of it is further than the edge "
    "from any pixel of its class in the truth",
    "shifted": "the true or the predicted region is one of its class on the other side in another place: moving it by "
    "whole pixels, no further than its longer side, gives an IoU of at least 0.5 and takes away half of what differs",
    "ragged": "the predicted class is the true one at most the edge's width away",
}
"""Kind -> its definition; the first that holds counts, in the order of `errors_of_pixels` and `errors_of_objects`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ErrorCase:
    """One error. index, key: of its image. true, found: names of the classes, None = there is none. pixels: of it.

    mask: (H, W) bool, where it is. truth, prediction: of pixels label maps (H, W) uint8, of objects masks (H, W) bool
    or None. kinds: of pixels the kinds of all errors of the image, see `pixel_errors`.
    """

    index: int
    key: str
    true: str | None
    found: str | None
    pixels: int
    mask: np.ndarray = field(repr=False)
    truth: np.ndarray | None = field(repr=False)
    prediction: np.ndarray | None = field(repr=False)
    kinds: np.ndarray | None = field(default=None, repr=False)

    @property
    def caption(self) -> str:
        """What is to be said of it."""
        if self.true is not None and self.found is not None and self.true != self.found:
            what = f"{self.true} taken for {self.found}"
        else:
            what = self.true or self.found or ""
        return f"{self.key}: {what}, {self.pixels} pixels"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; box: top, left, bottom, right."""
        rows, columns = np.nonzero(self.mask)
        box = [int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1]
        return {"key": self.key, "true": self.true, "found": self.found, "pixels": self.pixels, "box": box}


@dataclass(frozen=True, kw_only=True, eq=False)
class ErrorReport:
    """What was found.

    unit: "pixels" or "objects". counts: (5, K) of KINDS and classes: of extra objects the predicted class, of others
    the true one. right, judged: in units. edge: fraction of the diagonal. score: least, of objects. cases: by kind, the
    largest first.
    """

    unit: str
    classes: tuple[str, ...]
    counts: np.ndarray
    right: int
    judged: int
    images: int
    edge: float
    score: float
    cases: dict[str, tuple[ErrorCase, ...]]
    skipped: tuple[str, ...] = ()

    @property
    def definitions(self) -> dict[str, str]:
        """Kind -> what is counted."""
        return OBJECTS if self.unit == "objects" else PIXELS

    def total(self, kind: str) -> int:
        """Return how many errors of a kind there are."""
        return int(self.counts[KINDS.index(kind)].sum())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        per_class = {
            name: {kind: int(self.counts[row, column]) for row, kind in enumerate(KINDS)}
            for column, name in enumerate(self.classes)
        }
        setting = {"edge": self.edge} if self.unit == "pixels" else {"score": self.score}
        return {
            "unit": self.unit,
            "images": self.images,
            "judged": self.judged,
            "right": self.right,
            **setting,
            "errors": {kind: self.total(kind) for kind in KINDS},
            "per_class": per_class,
            "definitions": {TITLES[kind]: self.definitions[kind] for kind in KINDS},
            "cases": {kind: [case.to_dict() for case in cases] for kind, cases in self.cases.items()},
            "skipped": list(self.skipped),
        }


class ErrorCounter:
    """Counts the errors of one image after another, and keeps those that show most. classes: names."""

    def __init__(self, classes: Sequence[str], *, edge: float = EDGE, score: float = SCORE, kept: int = KEPT):
        if not 0 < edge <= 0.5:
            raise UsageError(f"edge: got {edge}, expected a fraction of the diagonal, above 0 and at most 0.5")
        if not 0 <= score <= 1:
            raise UsageError(f"score: got {score}, expected 0..1")
        self.classes, self.edge, self.score, self.kept = tuple(classes), edge, score, kept
        self.counts = np.zeros((len(KINDS), len(self.classes)), np.int64)
        self.right = self.judged = self.images = 0
        self.unit = ""
        self._heaps: dict[str, list[tuple[int, int, ErrorCase]]] = {kind: [] for kind in KINDS}

    def update(self, index: int, key: str, result: Prediction, target: Any) -> None:
        """Take one image into account. DataError where result and truth do not fit."""
        if isinstance(target, SemanticTarget):
            self._pixels(index, key, result, target)
        else:
            self._objects(index, key, result, target)
        self.images += 1

    def report(self, skipped: Sequence[str] = ()) -> ErrorReport:
        """Return what was counted. DataError where there was no image."""
        if not self.images:
            told = f"; first fault: {skipped[0]}" if skipped else ""
            raise DataError(f"no image could be looked at{told}")
        cases = {
            kind: tuple(case for *_, case in sorted(heap, key=lambda one: one[:2], reverse=True))
            for kind, heap in self._heaps.items()
        }
        return ErrorReport(
            unit=self.unit,
            classes=self.classes,
            counts=self.counts,
            right=self.right,
            judged=self.judged,
            images=self.images,
            edge=self.edge,
            score=self.score,
            cases=cases,
            skipped=tuple(skipped),
        )

    def _pixels(self, index: int, key: str, result: Prediction, target: SemanticTarget) -> None:
        self.unit = "pixels"
        prediction, label = label_maps(result, target, len(self.classes))
        kinds = pixel_errors(label, prediction, boundary_reach((label.shape[0], label.shape[1]), self.edge))
        judged = label != 255
        self.judged += int(judged.sum())
        self.right += int((judged & (label == prediction)).sum())
        for number, kind in enumerate(KINDS):
            of_kind = kinds == number
            if not of_kind.any():
                continue
            classes = (prediction if kind == EXTRA else label)[of_kind]
            self.counts[number] += np.bincount(classes, minlength=len(self.classes))
            mask = _largest_part(of_kind)
            case = ErrorCase(
                index=index,
                key=key,
                true=self.classes[_most(label[mask])],
                found=self.classes[_most(prediction[mask])],
                pixels=int(mask.sum()),
                mask=mask,
                truth=label,
                prediction=prediction,
                kinds=kinds,
            )
            self._keep(kind, case)

    def _objects(self, index: int, key: str, result: Any, target: InstancesTarget | SegmentsTarget) -> None:
        self.unit = "objects"
        true, found = true_objects(target), found_objects(result, target, self.score)
        errors, right = object_errors(true, found)
        self.right += right
        self.judged += int((~true.crowd.astype(bool)).sum())
        for one in errors:
            mine = None if one.true is None else true.masks[one.true]
            theirs = None if one.found is None else found.masks[one.found]
            names = (
                None if one.true is None else self.classes[true.kinds[one.true]],
                None if one.found is None else self.classes[found.kinds[one.found]],
            )
            of_class = found.kinds[one.found] if one.true is None else true.kinds[one.true]
            self.counts[KINDS.index(one.kind), of_class] += 1
            shown = mine if mine is not None else theirs
            assert shown is not None
            if shown.area and self._is_wanted(one.kind, shown.area):
                bitmaps = [None if mask is None else mask.bitmap() for mask in (mine, theirs)]
                case = ErrorCase(
                    index=index,
                    key=key,
                    true=names[0],
                    found=names[1],
                    pixels=shown.area,
                    mask=np.any([mask for mask in bitmaps if mask is not None], axis=0),
                    truth=bitmaps[0],
                    prediction=bitmaps[1],
                )
                self._keep(one.kind, case)

    def _is_wanted(self, kind: str, pixels: int) -> bool:
        heap = self._heaps[kind]
        return len(heap) < self.kept or pixels > heap[0][0]

    def _keep(self, kind: str, case: ErrorCase) -> None:
        heap = self._heaps[kind]
        place = -(self.images * 10000 + len(heap))  # of equal ones the first stays
        heapq.heappush(heap, (case.pixels, place - int(self.counts.sum()), case))
        if len(heap) > self.kept:
            heapq.heappop(heap)


def least_score(task: str) -> float:
    """Return the least score that counts by default: segments fill the image, so all of them do."""
    return 0.0 if TASKS[task].target == "SegmentsTarget" else SCORE


def errors_of(
    opened: Evaluation, *, edge: float = EDGE, score: float | None = None, progress: bool = True, skip_bad: bool = True
) -> ErrorReport:
    """Predict every image of a split and sort the errors by kind.

    Args:
        opened: model and data, see `evaluation.open_evaluation`.
        edge: of pixels, how far an edge may be off, as a fraction of the image's diagonal.
        score: of objects, the least that counts; default 0.5, and 0 where the model fills the image with segments.
        progress: show a bar on stderr.
        skip_bad: report and leave out files that cannot be used.
    """
    card = opened.predictor.card
    counter = ErrorCounter(card.classes, edge=edge, score=least_score(card.task) if score is None else score)
    skipped: list[str] = []
    for index, target, result in opened.results(skipped, skip_bad=skip_bad, progress=progress, title="looking"):
        counter.update(index, opened.dataset.key(index), result, target)
    return counter.report(skipped)


def _largest_part(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected part of a (H, W) mask that is not empty."""
    import cv2

    _, parts, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    found: np.ndarray = parts == 1 + int(facts[1:, cv2.CC_STAT_AREA].argmax())
    return found


def _most(values: np.ndarray) -> int:
    return int(np.bincount(values).argmax())


__all__ = ["EDGE", "RIGHT", "SCORE", "ErrorCase", "ErrorCounter", "ErrorReport", "errors_of"]
