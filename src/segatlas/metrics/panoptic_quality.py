"""Panoptic quality: segments found, missed and made up, and how well the found ones lie.

Kirillov et al., "Panoptic Segmentation", CVPR 2019; counted by the rules of its reference implementation. A predicted
segment is matched to the true one of its class that it covers with an IoU above one half: there is one at most. Ignored
pixels are left out of the union; crowds are never matched or missed; an unmatched prediction of which more than half is
ignored, or lies on the crowd of its class (the last one listed), counts nowhere.

Letters: K classes, H W image, S true and P predicted segments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segatlas.errors import DataError
from segatlas.metrics.metric import Metric, Prediction, Rows
from segatlas.metrics.number import Number
from segatlas.metrics.ratios import floats, mean, number, ratio
from segatlas.metrics.sums import Sums

if TYPE_CHECKING:
    from segatlas.structures import Panoptic, SegmentsTarget

SCALE = 1 << 40
"""IoUs are added up as whole numbers of this part of one, so that the order of images and processes cannot matter."""

PIECE = 1 << 15
"""Pixels looked at in one go: memory that stays mapped is several times quicker than new memory."""

TP, FP, FN, IOU, AS_THING = range(5)


def common_pixels(found: Panoptic, truth: np.ndarray, count: int) -> np.ndarray:
    """Return (S + 1, P + 1) int64, the pixels of each pair of segments; the last row and column are those of none.

    Args:
        found: the predicted segments.
        truth: (H, W) rows of the truth's table, -1 = ignore.
        count: S.

    Raises:
        DataError: a pixel of no listed segment, or a segment without a pixel.
    """
    ids = np.array([one.id for one in found.segments], np.int64)
    order = np.argsort(ids, kind="stable")
    true, drawn = np.ascontiguousarray(truth).ravel(), np.ascontiguousarray(found.ids).ravel()
    starts = _run_starts(true, drawn)
    lengths = np.diff(starts, append=true.size)
    rows, values = true[starts].astype(np.int64), drawn[starts].astype(np.int64)
    places = np.searchsorted(ids[order], values)
    known = np.zeros(values.size, bool)
    if ids.size:
        inside = places < ids.size
        known[inside] = ids[order][places[inside]] == values[inside]
    unknown = values[~known & (values != 0)]
    if unknown.size:
        raise DataError(f"a pixel of segment {int(unknown[0])}, which is not listed")
    if rows.max(initial=-1) >= count:
        raise DataError(f"a pixel of row {int(rows.max())} of a truth of {count} segments")
    columns = np.full(values.size, ids.size)
    columns[known] = order[places[known]]
    rows = np.where(rows < 0, count, rows)
    table = np.bincount(rows * (ids.size + 1) + columns, weights=lengths, minlength=(count + 1) * (ids.size + 1))
    common = table.astype(np.int64).reshape(count + 1, ids.size + 1)
    empty = np.flatnonzero(common[:, :-1].sum(0) == 0)
    if empty.size:
        raise DataError(f"segment {int(ids[empty[0]])} is listed and has no pixel")
    return common


def _run_starts(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return where runs of one pair of values begin in two arrays (n,)."""
    found = [np.zeros(1, np.int64)]
    changes, further = np.empty((2, min(PIECE, one.size)), np.bool_)
    for start in range(0, one.size - 1, PIECE):
        length = min(PIECE, one.size - 1 - start)
        for values, into in ((one, changes), (other, further)):
            np.not_equal(values[start + 1 : start + 1 + length], values[start : start + length], out=into[:length])
        changes |= further
        found.append(np.flatnonzero(changes[:length]) + (start + 1))
    return np.concatenate(found)


class PanopticQuality(Sums):
    """Counts matched, superfluous and missed segments of each class, and the IoUs of matched ones."""

    def __init__(self, classes: Sequence[str]):
        super().__init__(counts=(len(classes), 5))

    def update(self, result: Prediction, target: SegmentsTarget) -> float:
        """Count one image; returns its own PQ, the mean over its classes, NaN where it has no segment.

        Raises:
            DataError: sizes differ, a class is out of range, or table and map of the prediction do not agree.
        """
        found: Panoptic = result.panoptic
        truth, classes, things, crowd = (np.asarray(part) for part in target)
        crowd, things = crowd.astype(bool), things.astype(bool)
        if found.ids.shape != truth.shape:
            raise DataError(f"the predicted segments are {found.ids.shape}, the true ones {truth.shape}")
        kinds = np.array([one.class_index for one in found.segments], np.int64)
        total = len(self.counts["counts"])
        for what, values in (("prediction", kinds), ("truth", classes)):
            wrong = values[(values < 0) | (values >= total)]
            if wrong.size:
                raise DataError(f"a segment of the {what} has class {int(wrong[0])}; expected 0..{total - 1}")
        common = common_pixels(found, truth, len(classes))
        counts = np.zeros_like(self.counts["counts"])
        matched, missed, wrong_ones, shared = _matches(common, classes, crowd, kinds)
        np.add.at(counts[:, TP], classes[matched], 1)
        np.add.at(counts[:, IOU], classes[matched], np.rint(shared * SCALE).astype(np.int64))
        np.add.at(counts[:, FN], classes[missed], 1)
        np.add.at(counts[:, FP], kinds[wrong_ones], 1)
        np.add.at(counts[:, AS_THING], classes[things], 1)
        np.add.at(counts[:, AS_THING], [one.class_index for one in found.segments if one.is_thing], 1)
        self.counts["counts"] += counts
        tp, fp, fn, total = counts[:, :4].T
        return mean(ratio(total / SCALE, tp + 0.5 * fp + 0.5 * fn))

    def compute(self) -> Rows:
        """Return the numbers of `METRIC`."""
        counts = self.counts["counts"]
        columns = _scores(counts)
        is_thing = counts[:, AS_THING] > 0
        whole = {name: mean(values) for name, values in columns.items()}
        for kind, chosen in (("things", is_thing), ("stuff", ~is_thing)):
            whole |= {f"{name}_{kind}": mean(np.array(values)[chosen]) for name, values in columns.items()}
        segments = {
            "segments": tuple((counts[:, TP] + counts[:, FN]).tolist()),
            "segments_predicted": tuple((counts[:, TP] + counts[:, FP]).tolist()),
        }
        return Rows(per_class=columns | segments, whole={name: number(value) for name, value in whole.items()})


def _matches(
    common: np.ndarray, classes: np.ndarray, crowd: np.ndarray, kinds: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return rows matched, rows missed, columns that are wrong, and the IoU of each matched row."""
    both, ignored = common[:-1, :-1], common[-1, :-1]
    true_areas, areas = common[:-1].sum(1), common[:, :-1].sum(0)
    union = areas[None] + true_areas[:, None] - both - ignored[None]
    iou = ratio(both, union)
    pairs = (iou > 0.5) & (classes[:, None] == kinds[None]) & ~crowd[:, None]
    rows, columns = np.nonzero(pairs)
    is_matched, has_match = pairs.any(axis=1), pairs.any(axis=0)
    excused = ignored.copy()
    last_crowd = {int(classes[row]): int(row) for row in np.flatnonzero(crowd)}
    for column, kind in enumerate(kinds.tolist()):
        if kind in last_crowd:
            excused[column] += both[last_crowd[kind], column]
    wrong = ~has_match & (2 * excused <= areas)
    return rows, np.flatnonzero(~is_matched & ~crowd), np.flatnonzero(wrong), iou[rows, columns]


def _scores(counts: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Return PQ, SQ and RQ of (K, 5) counts, each a tuple of K values; NaN for a class without any segment."""
    tp, fp, fn, total = counts[:, :4].T
    occurs = tp + fp + fn > 0
    sums = total / SCALE
    shared = np.where(occurs, np.nan_to_num(ratio(sums, tp)), math.nan)
    return {
        "pq": floats(ratio(sums, tp + 0.5 * fp + 0.5 * fn)),
        "sq": floats(shared),
        "rq": floats(ratio(tp, tp + 0.5 * fp + 0.5 * fn)),
    }


_PQ = (
    "Of a class over the whole set, the sum of the IoUs of matched segments over TP + FP / 2 + FN / 2, or the mean "
    "over the classes that occur: a predicted segment is matched to a true one of its class with an IoU above 0.5, "
    "ignored pixels left out of the union; crowds are neither matched nor missed, and an unmatched prediction lying by "
    "more than half on ignored pixels and the crowd of its class counts nowhere."
)
_TITLES = {"pq": "panoptic quality", "sq": "segmentation quality", "rq": "recognition quality"}


def _means(kind: str) -> tuple[Number, ...]:
    return tuple(
        Number(
            name=f"{name}_{kind}",
            title=f"{title}, {kind}",
            label=f"{name.upper()} {kind}",
            monitored=name == "pq",
            definition=f"Mean of {name} over the classes of {kind} that occur; a class is one of things where truth or "
            "prediction has a segment of it that is a thing.",
        )
        for name, title in _TITLES.items()
    )


METRIC = Metric(
    name="panoptic_quality",
    title="panoptic quality",
    accumulator=PanopticQuality,
    of_objects=True,
    image=Number(
        name="image_pq",
        label="PQ",
        title="panoptic quality",
        definition="The pq of one image alone, the mean over the classes that occur in it; it ranks images and is "
        "never averaged into pq; undefined where there is no segment.",
    ),
    numbers=(
        Number(
            name="pq",
            heading="PQ",
            title=_TITLES["pq"],
            label="PQ",
            last_line="pq",
            monitored=True,
            definition=_PQ,
        ),
        Number(
            name="sq",
            heading="SQ",
            title=_TITLES["sq"],
            label="SQ",
            last_line="sq",
            definition="Mean IoU of the matched segments of a class, matched as for pq, 0 where none is, or the mean "
            "over the classes that occur.",
        ),
        Number(
            name="rq",
            heading="RQ",
            title=_TITLES["rq"],
            label="RQ",
            last_line="rq",
            definition="TP / (TP + FP / 2 + FN / 2) of the segments of a class, matched as for pq, or the mean over "
            "the classes that occur.",
        ),
        *_means("things"),
        *_means("stuff"),
        Number(
            name="segments",
            heading="segments",
            format="count",
            predicted="segments_predicted",
            definition="True segments of the class in the whole set, crowds left out.",
        ),
        Number(
            name="segments_predicted",
            format="count",
            definition="Predicted segments of the class in the whole set, those that count nowhere left out.",
        ),
    ),
)
