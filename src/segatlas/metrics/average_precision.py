"""Average precision of masks, as COCO counts it: objects found at ten IoUs, by score, class and size.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and the rules of its reference implementation;
boundary AP: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021.

Of each image only what its predictions matched is kept, 40 bytes a prediction; masks are compared as runs, and let go.
At one IoU and range of sizes, each prediction by falling score takes the free true object with the highest IoU that
reaches the bound. True objects outside the range, and crowds, are taken only by a prediction that finds no other; it
counts nowhere then, nor does an unmatched prediction outside the range.

Letters: K classes, D predictions, G true objects, T = 10 IoUs, A = 4 ranges of sizes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np

from segatlas.errors import DataError
from segatlas.metrics.metric import Metric, Prediction, Rows
from segatlas.metrics.number import Number
from segatlas.metrics.ratios import floats, mean
from segatlas.structures import Rle, SegmentsTarget
from segatlas.structures.rle import ious

if TYPE_CHECKING:
    from segatlas.structures import InstancesTarget

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
SIZES = ("all", "small", "medium", "large")
RANGES = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]], np.float64)
"""Least and most area of each of SIZES, in pixels, both included."""

FEW, SOME = 1, 10
"""Predictions of a class in an image for the first two average recalls."""

BITS = np.uint64(1) << np.arange(len(SIZES) * len(IOUS), dtype=np.uint64)
"""A bit for each size and IoU: all IoUs of the first size come first."""

_BOUNDS_OF_IOU = np.minimum(IOUS, 1 - 1e-10)
_REACHED = np.array(
    [sum((1 << reached) - 1 << len(IOUS) * size for size in range(4)) for reached in range(11)], np.uint64
)
"""How many IoUs a pair reaches -> their bits, of every size."""

_OUT = np.array(
    [sum(1023 << len(IOUS) * size for size in range(4) if flags >> size & 1) for flags in range(16)], np.uint64
)
"""Four flags, one a size -> the bits of all IoUs of these sizes."""


@dataclass(frozen=True, kw_only=True)
class _Objects:
    """Objects of one image. kinds: (N,). areas: (N,). crowd: (N,) bool."""

    masks: tuple[Rle, ...]
    kinds: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray

    @classmethod
    def of(cls, masks: Sequence[Rle], kinds: np.ndarray, crowd: np.ndarray) -> _Objects:
        areas = np.array([one.area for one in masks], np.float64)
        return cls(masks=tuple(masks), kinds=kinds, areas=areas, crowd=crowd)


def outside(areas: np.ndarray) -> np.ndarray:
    """Return (N, A) bool: the area is not in the range."""
    found: np.ndarray = (areas[:, None] < RANGES[None, :, 0]) | (areas[:, None] > RANGES[None, :, 1])
    return found


def match(
    shared: np.ndarray, found_out: np.ndarray, true_out: np.ndarray, crowd: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Match predictions of an image, by falling score, to its true objects.

    Args:
        shared: (D, G) IoUs, 0 for a pair of two classes.
        found_out: (D, A), outside the range.
        true_out: (G, A), outside the range, or a crowd.
        crowd: (G,).

    Returns:
        (D,) uint64 twice, a bit for each size and IoU: matched; counts nowhere.
    """
    flags = 1 << np.arange(len(SIZES))
    out, hidden = _OUT[found_out @ flags], _OUT[true_out @ flags]
    matched, ignored = np.zeros(len(shared), np.uint64), out.copy()
    near = shared >= _BOUNDS_OF_IOU[0]
    rows, columns = np.nonzero(near)
    values = shared[rows, columns]
    reached = _REACHED[np.searchsorted(_BOUNDS_OF_IOU, values, side="right")]
    alone = (near.sum(1)[rows] == 1) & ((near.sum(0)[columns] == 1) | crowd[columns])
    single, own = rows[alone], columns[alone]
    matched[single] = reached[alone]
    ignored[single] = (hidden[own] & reached[alone]) | (out[single] & ~reached[alone])
    taken = [0] * len(crowd)
    pairs = np.flatnonzero(~alone)
    pairs = pairs[np.lexsort((-columns[pairs], -values[pairs], rows[pairs]))]  # of equal IoUs the last object wins
    order = zip(rows[pairs].tolist(), columns[pairs].tolist(), reached[pairs].tolist(), strict=True)
    for row, near_ones in groupby(order, key=itemgetter(0)):
        free = [(column, bits if crowd[column] else bits & ~taken[column]) for _, column, bits in near_ones]
        hits, left_out = 0, int(out[row])
        for wants_hidden in (False, True):  # what counts nowhere is taken by who finds no other
            for column, bits in free:
                own_bits = int(hidden[column]) if wants_hidden else ~int(hidden[column])
                takes = bits & own_bits & ~hits
                taken[column] |= takes
                hits |= takes
                left_out = left_out | takes if wants_hidden else left_out & ~takes
        matched[row], ignored[row] = hits, left_out
    return matched, ignored


class AveragePrecision:
    """Keeps of each prediction class, score, rank in its image and class, and what it matched."""

    def __init__(
        self,
        classes: Sequence[str],
        max_detections: int = 100,
        boundary: bool = True,
        boundary_width: float = 0.02,
        class_agnostic: bool = True,
    ):
        self.classes = tuple(classes)
        self.most = max_detections
        self.boundary_width = boundary_width if boundary else 0.0
        self.views = ("", *(["edge_"] if boundary else []), *(["any_"] if class_agnostic else []))
        self._kept: list[dict[str, np.ndarray]] = [_nothing(self.views)]
        self._positives = np.zeros((len(self.classes), len(SIZES)), np.int64)
        self._images = 0

    def update(self, result: Prediction, target: InstancesTarget | SegmentsTarget) -> float:
        """Count one image; it has no score of its own.

        Raises:
            DataError: masks differ in size, a class is out of range, or a score is no number.
        """
        true = objects_of(target)
        scores, found = self._found(result, true)
        same = found.kinds[:, None] == true.kinds[None]
        wanted = np.ones_like(same) if "any_" in self.views else same
        shared = ious(found.masks, true.masks, true.crowd.tolist(), wanted)
        out, true_out = outside(found.areas), outside(true.areas) | true.crowd[:, None]
        kept = {"score": scores, "kind": found.kinds, "image": np.full(len(scores), self._images)}
        given = (found.kinds, out, true_out, true.crowd)
        kept |= self._flags("", shared * same, *given)
        if "edge_" in self.views:
            kept |= self._flags("edge_", self._edges(found, true, shared * same), *given)
        if "any_" in self.views:
            kept |= self._flags("any_", *_without_classes(shared, scores, found, true, out, true_out))
        self._kept.append(kept)
        self._images += 1
        np.add.at(self._positives, true.kinds, ~true_out)
        return math.nan

    def _found(self, result: Prediction, true: _Objects) -> tuple[np.ndarray, _Objects]:
        """Return scores (D,) and predictions, checked, by falling score."""
        objects = sorted(result.instances, key=lambda one: -one.score)
        scores = np.array([one.score for one in objects], np.float64)
        if np.isnan(scores).any():
            raise DataError("an object of the prediction has no number for its score")
        kinds = np.array([one.class_index for one in objects], np.int64)
        for what, values in (("prediction", kinds), ("truth", true.kinds)):
            wrong = values[(values < 0) | (values >= len(self.classes))]
            if wrong.size:
                raise DataError(
                    f"an object of the {what} has class {int(wrong[0])}; expected 0..{len(self.classes) - 1}"
                )
        return scores, _Objects.of([one.rle for one in objects], kinds, np.zeros(len(kinds), bool))

    def _edges(self, found: _Objects, true: _Objects, shared: np.ndarray) -> np.ndarray:
        """Return (D, G) the lower one of the IoUs (D, G) and those of boundaries, where it may count."""
        near = shared >= IOUS[0]
        rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
        own = [edge_of(found.masks[row], self.boundary_width) for row in rows]
        other = [edge_of(true.masks[column], self.boundary_width) for column in columns]
        block = np.ix_(rows, columns)
        edges = np.zeros_like(shared)
        edges[block] = np.minimum(shared[block], ious(own, other, true.crowd[columns].tolist(), near[block]))
        return edges

    def _flags(
        self,
        name: str,
        shared: np.ndarray,
        kinds: np.ndarray,
        out: np.ndarray,
        true_out: np.ndarray,
        crowd: np.ndarray,
        order: np.ndarray | None = None,
    ) -> dict[str, np.ndarray]:
        """Return rank, and matched and ignored as bits, of predictions by falling score, in the order of the image."""
        rank = _ranks(kinds)
        kept = np.flatnonzero(rank < self.most)
        bits = np.zeros((2, len(kinds)), np.uint64)
        bits[:, kept] = match(shared[kept], out[kept], true_out, crowd)
        place = np.arange(len(kinds)) if order is None else np.argsort(order)
        matched, ignored = bits[:, place].view(np.int64)
        return {f"{name}rank": rank[place], f"{name}matched": matched, f"{name}ignored": ignored}

    def _joined(self) -> dict[str, np.ndarray]:
        if len(self._kept) > 1:
            self._kept = [{name: np.concatenate([part[name] for part in self._kept]) for name in self._kept[0]}]
        return self._kept[0]

    def state(self) -> dict[str, np.ndarray]:
        """Return a copy of what was counted: an entry a prediction, and the true objects of each class and size."""
        kept = {name: array.copy() for name, array in self._joined().items()}
        return kept | {"positives": self._positives.copy(), "images": np.array([self._images])}

    def merge(self, state: Mapping[str, np.ndarray]) -> None:
        """Take in what another object made with the same arguments has counted; its images follow ours."""
        if state.keys() != self.state().keys() or state["positives"].shape != self._positives.shape:
            raise ValueError(f"state holds {sorted(state)}, expected {sorted(self.state())} of the same classes")
        self._kept.append({name: state[name].copy() for name in self._kept[0]})
        self._kept[-1]["image"] += self._images
        self._images += int(state["images"][0])
        self._positives += state["positives"]

    def curves(self, name: str = "") -> tuple[np.ndarray, np.ndarray]:
        """Return precision (T, 101, K, A) at `most` predictions and recall (3, T, K, A) at FEW, SOME and `most`.

        -1 stands where there is no true object, as in COCO's arrays. name: "" of masks, "edge_" of boundaries, "any_"
        without classes, whose K is 1.
        """
        kept = self._joined()
        positives = self._positives if name != "any_" else self._positives.sum(0, keepdims=True)
        precision = -np.ones((len(IOUS), len(RECALLS), *positives.shape))
        recall = -np.ones((3, len(IOUS), *positives.shape))
        kinds = np.zeros_like(kept["kind"]) if name == "any_" else kept["kind"]
        order = np.lexsort((kept[f"{name}rank"], kept["image"], -kept["score"], kinds))
        ends = np.searchsorted(kinds[order], np.arange(len(positives) + 1))
        for kind, sizes in enumerate(positives):
            rows = order[ends[kind] : ends[kind + 1]]
            rank = kept[f"{name}rank"][rows]
            for area in np.flatnonzero(sizes).tolist():
                shift = BITS[area * len(IOUS) : (area + 1) * len(IOUS), None].view(np.int64)
                matched = kept[f"{name}matched"][rows] & shift != 0
                counted = kept[f"{name}ignored"][rows] & shift == 0
                for column, most in enumerate((FEW, SOME, self.most)):
                    shown = rank < most
                    hits = (matched & counted)[:, shown]
                    recall[column, :, kind, area] = hits.sum(axis=1) / sizes[area]
                    if column == 2:
                        misses = (~matched & counted)[:, shown]
                        precision[:, :, kind, area] = _precision(hits, misses, int(sizes[area]))
        return precision, recall

    def compute(self) -> Rows:
        """Return the numbers of `METRIC`."""
        precision, recall = self.curves()
        columns = _averages(precision)
        columns["ar"] = _means(recall[2, :, :, 0][None])
        whole = {name: mean(values) for name, values in columns.items()}
        whole["ar_1"], whole["ar_10"] = (mean(_means(recall[column, :, :, 0][None])) for column in (0, 1))
        for area, size in enumerate(SIZES[1:], start=1):
            whole[f"ar_{size}"] = mean(_means(recall[2, :, :, area][None]))
        none = np.full((1, 1, len(self.classes)), -1.0)
        columns["boundary_ap"] = _means(self.curves("edge_")[0][:, :, :, 0] if "edge_" in self.views else none)
        whole["boundary_ap"] = mean(columns["boundary_ap"])
        together = self.curves("any_") if "any_" in self.views else (none[..., None], none[None, ..., None][[0, 0, 0]])
        whole["class_agnostic_ap"] = mean(_means(together[0][:, :, :, 0]))
        whole["class_agnostic_ar"] = mean(_means(together[1][2, :, :, 0][None]))
        return Rows(
            per_class=columns | {"true_objects": tuple(self._positives[:, 0].tolist())},
            whole=whole,
            setting=f"at most {self.most} predictions of a class in an image",
        )


def _nothing(views: Sequence[str]) -> dict[str, np.ndarray]:
    """Return an entry for no prediction."""
    names = [f"{name}{part}" for name in views for part in ("rank", "matched", "ignored")]
    return {"score": np.zeros(0), **{name: np.zeros(0, np.int64) for name in ["kind", "image", *names]}}


def _without_classes(
    shared: np.ndarray, scores: np.ndarray, found: _Objects, true: _Objects, out: np.ndarray, true_out: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return what `_flags` takes where classes play no part; of equal scores the lower class is first."""
    rows, columns = np.lexsort((found.kinds, -scores)), np.argsort(true.kinds, kind="stable")
    none = np.zeros(len(rows), np.int64)
    return shared[rows][:, columns], none, out[rows], true_out[columns], true.crowd[columns], rows


def _ranks(kinds: np.ndarray) -> np.ndarray:
    """Return the place of each among those of its class, from 0."""
    order = np.argsort(kinds, kind="stable")
    first = np.searchsorted(kinds[order], kinds[order])
    ranks = np.empty(len(kinds), np.int64)
    ranks[order] = np.arange(len(kinds)) - first
    return ranks


def _precision(hits: np.ndarray, misses: np.ndarray, positives: int) -> np.ndarray:
    """Return (T, 101) the best precision at each recall or above, from (T, n) flags by falling score."""
    right, wrong = (np.cumsum(flags, axis=1, dtype=np.float64) for flags in (hits, misses))
    reached = right / positives
    precision = right / (wrong + right + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    found = np.zeros((len(hits), len(RECALLS)))
    for row in range(len(hits)):
        places = np.searchsorted(reached[row], RECALLS, side="left")
        inside = places < best.shape[1]
        found[row, inside] = best[row, places[inside]]
    return found


def _means(values: np.ndarray) -> tuple[float, ...]:
    """Return the mean of each class over the first two axes of (.., .., K), NaN for -1."""
    return floats(np.where(values[0, 0] < 0, math.nan, values.mean(axis=(0, 1))))


def _averages(precision: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Return AP over all IoUs and sizes, at single IoUs, and of the sizes."""
    single = {f"ap{round(100 * IOUS[row])}": _means(precision[row : row + 1, :, :, 0]) for row in (0, 5)}
    sizes = {f"ap_{size}": _means(precision[:, :, :, area]) for area, size in enumerate(SIZES[1:], start=1)}
    return {"ap": _means(precision[:, :, :, 0]), **single, **sizes}


def edge_of(mask: Rle, width: float) -> Rle:
    """Return the pixels of a mask that have one outside it, or outside the image, at most `width` x diagonal away."""
    import cv2  # here: listing records and reading recipes does without

    reach = max(1, round(width * math.hypot(*mask.size)))
    top, left, _, _ = mask.box
    part = mask.part()
    if part.size:
        kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
        part &= cv2.erode(part.view(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) == 0
    return Rle.placed(part, mask.size, top, left)


def objects_of(target: InstancesTarget | SegmentsTarget) -> _Objects:
    """Return the true objects; of segments those that are things."""
    classes, crowd = np.asarray(target.classes, np.int64), np.asarray(target.crowd).astype(bool)
    if not isinstance(target, SegmentsTarget):
        masks = [one if isinstance(one, Rle) else Rle.of(np.asarray(one)) for one in target.masks]
        return _Objects.of(masks, classes, crowd)
    ids, rows = np.asarray(target.ids), np.flatnonzero(np.asarray(target.things))
    masks = [Rle.of(ids == row) for row in rows]
    return _Objects.of(masks, classes[rows], crowd[rows])


_AP = (
    "Mean over the IoUs 0.5 to 0.95 in steps of 0.05 and the recalls 0 to 1 in steps of 0.01 of the best precision at "
    "that recall or above, predictions of a class in the whole set by falling score, or the mean over the classes with "
    "true objects: at each IoU a prediction takes the free true object of its class and image with the highest IoU of "
    "masks that reaches it; predictions on crowds count nowhere."
)
_BOUNDS = {
    "small": "of at most 32 x 32 pixels",
    "medium": "of 32 x 32 to 96 x 96 pixels",
    "large": "of 96 x 96 pixels or more",
}


def _of_size(name: str, size: str) -> Number:
    what = "precision" if name == "ap" else "recall"
    return Number(
        name=f"{name}_{size}",
        title=f"average {what}, {size} objects",
        label=f"{name.upper()} {size}",
        definition=f"The {name} of objects {_BOUNDS[size]} of mask; others, true or predicted, count nowhere.",
    )


def _recall(name: str, most: str) -> Number:
    return Number(
        name=name,
        title=f"average recall, {most} a class and image",
        label=name.upper().replace("_", "@"),
        definition=f"Mean over the IoUs of ap of the fraction of true objects that are matched when {most} predictions "
        "of a class in an image count, those of highest score, or the mean over the classes that have true objects.",
    )


METRIC = Metric(
    name="average_precision",
    title="average precision of masks",
    accumulator=AveragePrecision,
    of_objects=True,
    options=("max_detections", "boundary", "boundary_width", "class_agnostic"),
    numbers=(
        Number(
            name="ap",
            heading="AP",
            title="average precision",
            label="AP",
            last_line="ap",
            monitored=True,
            definition=_AP,
        ),
        Number(
            name="ap50",
            heading="AP50",
            title="average precision at IoU 0.5",
            label="AP50",
            last_line="ap50",
            monitored=True,
            definition="The ap at the IoU 0.5 alone.",
        ),
        Number(
            name="ap75",
            heading="AP75",
            title="average precision at IoU 0.75",
            label="AP75",
            last_line="ap75",
            monitored=True,
            definition="The ap at the IoU 0.75 alone.",
        ),
        *(_of_size("ap", size) for size in SIZES[1:]),
        Number(
            name="boundary_ap",
            title="boundary average precision",
            label="B-AP",
            monitored=True,
            definition="The ap where the IoU of two masks is the lower one of theirs and that of their boundaries "
            "(Cheng, CVPR 2021): the pixels of a mask that have one outside it, or outside the image, at most d pixels "
            "away (chessboard distance), d = boundary_width x image diagonal, rounded, at least 1.",
        ),
        _recall("ar_1", "1"),
        _recall("ar_10", "10"),
        _recall("ar", "max_detections"),
        *(_of_size("ar", size) for size in SIZES[1:]),
        Number(
            name="class_agnostic_ap",
            title="average precision, classes left aside",
            label="AP without classes",
            definition="The ap where all objects are taken for one class, max_detections an image.",
        ),
        Number(
            name="class_agnostic_ar",
            title="average recall, classes left aside",
            label="AR without classes",
            definition="The ar where all objects are taken for one class, max_detections an image.",
        ),
        Number(
            name="true_objects",
            format="count",
            definition="True objects of the class in the whole set, crowds left out.",
        ),
    ),
)
