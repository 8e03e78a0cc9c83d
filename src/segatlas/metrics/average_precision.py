"""Average precision of masks, as COCO counts it: objects found at ten IoUs, by score, class and size.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and the rules of its reference implementation;
boundary AP: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021.

Of each image only what its predictions matched is kept, 48 bytes a prediction, 96 with boundaries and without classes;
masks are compared as runs, some images at a time, and let go. What takes what: `object_pairs`.

Letters: K classes, D predictions, G true objects, Q pairs of them, T = 10 IoUs, A = 4 ranges of sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from segatlas.errors import DataError
from segatlas.metrics.metric import Metric, Prediction, Rows
from segatlas.metrics.number import Number
from segatlas.metrics.object_pairs import (
    BITS,
    BOUNDS,
    IOUS,
    SIZES,
    FoundMasks,
    ImageMasks,
    ObjectPairs,
    Objects,
    joined_by,
    match,
    objects_of,
    together,
)
from segatlas.metrics.ratios import floats, mean
from segatlas.structures import Rle
from segatlas.structures.rle import MaskRuns, check_sizes, pair_ious

if TYPE_CHECKING:
    from segatlas.structures import InstancesTarget, SegmentsTarget

RECALLS = np.linspace(0, 1, 101)
FEW, SOME = 1, 10
"""Predictions of a class in an image for the first two average recalls."""

PIECE = 1 << 22
"""Flags of predictions, one an IoU and size, that are looked at in one go."""

AT_ONCE = 1500
"""Objects, found and true, whose images are compared in one go: calls for many cost little more than for one."""


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
        self._waiting: list[ImageMasks] = []
        self._objects_waiting = 0

    def update(self, result: Prediction, target: InstancesTarget | SegmentsTarget) -> float:
        """Count one image; it has no score of its own.

        Raises:
            DataError: masks differ in size, a class is out of range, or a score is no number.
        """
        objects, true = result.instances, objects_of(target)
        found = FoundMasks(
            [one.rle for one in objects], [one.class_index for one in objects], [one.score for one in objects]
        )
        if any(map(math.isnan, found.scores)):
            raise DataError("an object of the prediction has no number for its score")
        for what, kinds in (("prediction", found.kinds), ("truth", true.kinds.tolist())):
            if kinds and not 0 <= min(kinds) <= max(kinds) < len(self.classes):
                wrong = next(kind for kind in kinds if not 0 <= kind < len(self.classes))
                raise DataError(f"an object of the {what} has class {wrong}; expected 0..{len(self.classes) - 1}")
        check_sizes([*found.masks, *true.masks])
        self._waiting.append((self._images, found, true))
        self._images += 1
        self._objects_waiting += len(objects) + len(true.masks)
        if self._objects_waiting >= AT_ONCE:
            self._compare()
        return math.nan

    def _compare(self) -> None:
        """Compare the objects of the images that wait."""
        if not self._waiting:
            return
        found, true = together(self._waiting)
        self._waiting, self._objects_waiting = [], 0
        with_any = "any_" in self.views
        names = ((one.images, one.images * len(self.classes) + one.kinds) for one in (found, true))
        (found_image, found_kind), (true_image, true_kind) = names
        rows, columns = joined_by(*((found_image, true_image) if with_any else (found_kind, true_kind)))
        shared = pair_ious(found.runs, rows, true.runs, columns, true.crowd)
        pairs = ObjectPairs(rows=rows, columns=columns, shared=shared)
        same = pairs.where(found.kinds[rows] == true.kinds[columns]) if with_any else pairs
        kept = {"score": found.scores, "kind": found.kinds, "image": found.images}
        kept |= self._flags("", same, found, true, found_kind)
        if "edge_" in self.views:
            kept |= self._flags("edge_", self._edges(same, found, true), found, true, found_kind)
        if with_any:
            kept |= self._flags("any_", pairs, found, true, found_image)
        self._kept.append(kept)
        np.add.at(self._positives, true.kinds, ~true.out)

    def _edges(self, pairs: ObjectPairs, found: Objects, true: Objects) -> ObjectPairs:
        """Return the pairs that may count, with the lower one of their IoU and that of their boundaries."""
        near = pairs.where(pairs.shared >= BOUNDS[0])
        edges = []
        for places, objects in ((near.rows, found), (near.columns, true)):
            used, own = np.unique(places, return_inverse=True)
            edges.append((MaskRuns([edge_of(objects.masks[one], self.boundary_width) for one in used.tolist()]), own))
        (many, rows), (others, columns) = edges
        crowd = true.crowd[np.unique(near.columns)]
        shared = np.minimum(near.shared, pair_ious(many, rows, others, columns, crowd))
        return ObjectPairs(rows=near.rows, columns=near.columns, shared=shared)

    def _flags(
        self, name: str, pairs: ObjectPairs, found: Objects, true: Objects, group: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return of each prediction its rank in its group (D,), and matched and ignored as bits."""
        order = np.lexsort((found.kinds, -found.scores, group))  # of equal scores the lower class is first
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        rank = place - np.searchsorted(group[order], group)
        counts = pairs.where(rank[pairs.rows] < self.most)
        matched, ignored = (bits.view(np.int64) for bits in match(counts, found, true, place))
        return {f"{name}rank": rank, f"{name}matched": matched, f"{name}ignored": ignored}

    def _joined(self) -> dict[str, np.ndarray]:
        self._compare()
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
        rows = np.flatnonzero(kept[f"{name}rank"] < self.most)
        rank, image, score, kind, matched, ignored = (
            kept[part][rows] for part in (f"{name}rank", "image", "score", "kind", f"{name}matched", f"{name}ignored")
        )
        kinds = np.zeros_like(kind) if name == "any_" else kind
        order = np.lexsort((rank, image, -score, kinds))
        ends = np.searchsorted(kinds[order], np.arange(len(positives) + 1))
        precision, recall = (np.empty((len(BITS), len(positives), count)) for count in (len(RECALLS), 3))
        for first, last in _stretches(np.maximum(np.diff(ends), positives[:, 0])):
            own, part = order[ends[first] : ends[last]], slice(first, last)
            given = (matched[own], ignored[own], rank[own], kinds[own] - first)
            _draw(precision[:, part], recall[:, part], *given, positives[part])
        shape = (len(SIZES), len(IOUS), len(positives), -1)
        return precision.reshape(shape).transpose(1, 3, 2, 0), recall.reshape(shape).transpose(3, 1, 2, 0)

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


def _stretches(lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield first and behind-last class of neighbours that are looked at in one go. lengths: of each class's lists."""
    first = 0
    for last in range(1, len(lengths) + 1):
        wider = lengths[first : last + 1]
        if last == len(lengths) or len(wider) * int(wider.max()) * len(BITS) > PIECE:
            yield first, last
            first = last


def _draw(
    precision: np.ndarray,
    recall: np.ndarray,
    matched: np.ndarray,
    ignored: np.ndarray,
    rank: np.ndarray,
    kinds: np.ndarray,
    positives: np.ndarray,
) -> None:
    """Write precision (A x T, K, 101) and recall (A x T, K, 3) of some classes, see `AveragePrecision.curves`.

    Args:
        precision: written.
        recall: written.
        matched: (n,) bits of the predictions of these classes, class by class, by falling score.
        ignored: (n,) bits.
        rank: (n,) places in their images.
        kinds: (n,) 0..K-1.
        positives: (K, A) true objects.
    """
    needed = _hits_for(positives.T)
    step = max(1, PIECE // max(len(rank), 1))
    for begin in range(0, len(BITS), step):
        columns = slice(begin, begin + step)
        sizes = np.arange(len(BITS))[columns] // len(IOUS)
        flags = BITS[columns, None].view(np.int64)
        misses = ignored & flags == 0
        hits = (matched & flags != 0) & misses
        misses ^= hits
        total = positives.T[sizes]
        groups, places, best = _best_precision(hits, misses, kinds, len(positives))
        wanted = np.minimum(needed, best.shape[1] - 1)[sizes]
        wanted += (np.arange(len(best)) * best.shape[1]).reshape(*total.shape, 1)
        np.take(best, wanted, out=precision[columns])
        for place, shown in enumerate((rank[places] < FEW, rank[places] < SOME, slice(None))):
            counts = np.bincount(groups[shown], minlength=len(best)).reshape(total.shape)
            recall[columns, :, place] = counts / np.maximum(total, 1)
        precision[columns][total == 0] = -1
        recall[columns][total == 0] = -1


def _best_precision(
    hits: np.ndarray, misses: np.ndarray, kinds: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the best precision from each hit on: it is best at a hit, between two of them it only falls.

    Args:
        hits: (C, n) predictions of classes (n,) by falling score.
        misses: (C, n).
        kinds: (n,) 0..K-1, rising.
        count: K.

    Returns:
        The group (column x K + class) and place in (n,) of each hit; (C x K, m + 1) of each group, 0 after the last.
    """
    rows, places = np.nonzero(hits)
    groups = rows * count + kinds[places]
    sizes = np.bincount(groups, minlength=len(hits) * count)
    number = np.arange(len(groups)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    missed = np.zeros((len(hits), hits.shape[1] + 1), np.int32)
    np.cumsum(misses, axis=1, out=missed[:, 1:])
    begin = np.searchsorted(kinds, np.arange(count))
    wrong = missed[rows, places] - missed[rows, begin[kinds[places]]]
    best = np.zeros((len(sizes), int(sizes.max(initial=0)) + 1))
    right = number + 1.0
    best[groups, number] = right / (wrong + right + np.spacing(1))
    return groups, places, np.ascontiguousarray(np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1])


def _hits_for(positives: np.ndarray) -> np.ndarray:
    """Return (..., 101) which hit, from 0, is the first that reaches each recall, of numbers of true objects (...)."""
    whole = np.maximum(positives, 1)[..., None]
    hits = np.ceil(RECALLS * whole)
    hits -= (hits - 1) / whole >= RECALLS  # where the product was rounded
    hits += hits / whole < RECALLS
    return np.maximum(hits, 1).astype(np.int64) - 1


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
        heading=f"AP {size[0].upper()}" if name == "ap" else "",
        last_line=f"{name}_{size}" if name == "ap" else "",
        label=f"{name.upper()} {size}",
        definition=f"The {name} of objects {_BOUNDS[size]} of mask; others, true or predicted, count nowhere.",
    )


def _recall(name: str, most: str) -> Number:
    return Number(
        name=name,
        title=f"average recall, {most} a class and image",
        heading="AR" if name == "ar" else "",
        last_line=name if name == "ar" else "",
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
    training={"boundary": False, "class_agnostic": False},
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
            heading="B-AP",
            label="B-AP",
            last_line="boundary_ap",
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
