"""Objects found and missed: each true object is matched to at most one predicted object of its class.

Matching goes through the predictions of an image by falling score; each takes the free true object with the highest IoU
of their masks, if that is at least 0.5. TP, FP, FN are matched predictions, other predictions, and true objects that
nothing matched. Predictions that lie mostly on a crowd of their class count nowhere.

Leaving out predictions below a score leaves the pairs of all others as they are. So one look at an image counts for
every threshold, and `best_f1` says what a threshold for use is worth, where a detector gives many doubtful objects.
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
    from segatlas.structures import Instance, InstancesTarget

LEAST_IOU = 0.5
SCALE = 1 << 20
"""IoUs are added up as whole numbers of this part of one, so that the order of images and processes cannot matter."""

STEPS = 1000
"""Thresholds of scores are multiples of this part of one."""

TP, FP, FN, IOU = range(4)


def match_objects(ious: np.ndarray) -> list[tuple[int, int]]:
    """Return (prediction, truth) pairs from IoUs (P, T), predictions by falling score, each in one pair at most."""
    free, pairs = np.ones(ious.shape[1], bool), []
    for index, row in enumerate(ious):
        candidates = np.where(free, row, -1.0)
        if candidates.size and candidates.max() >= LEAST_IOU:
            best = int(candidates.argmax())
            free[best] = False
            pairs.append((index, best))
    return pairs


class InstanceF1(Sums):
    """Counts matched, superfluous and missed objects of each class, the IoUs of matched ones, and both by score."""

    def __init__(self, classes: Sequence[str]):
        super().__init__(counts=(len(classes), 4), by_score=(STEPS + 1, 2))

    def update(self, result: Prediction, target: InstancesTarget) -> float:
        """Count one image; returns its own F1 over all classes, NaN where there is no object at all.

        Raises:
            DataError: masks differ in size, or a class is out of range.
        """
        masks, kinds, crowd = (np.asarray(part) for part in target[:3])
        objects = sorted(result.instances, key=lambda one: -one.score)
        found = [one.class_index for one in objects]
        count = len(self.counts["counts"])
        for what, values in (("prediction", found), ("truth", kinds.tolist())):
            wrong = [value for value in values if not 0 <= value < count]
            if wrong:
                raise DataError(f"an object of the {what} has class {wrong[0]}; expected 0..{count - 1}")
        for one in objects:
            if one.rle.size != masks.shape[1:]:
                raise DataError(f"a predicted mask is {one.rle.size}, the true ones are {masks.shape[1:]}")
        counts = np.zeros_like(self.counts["counts"])
        is_crowd = crowd.astype(bool)
        for kind in {*found, *kinds[~is_crowd].tolist()}:
            predicted = [one for one in objects if one.class_index == kind]
            of_kind = kinds == kind
            verdicts, matched_ious = _judge(predicted, masks[of_kind & ~is_crowd], masks[of_kind & is_crowd])
            tp, fp = (int(np.count_nonzero(verdicts == verdict)) for verdict in (TP, FP))
            counts[kind] = tp, fp, int(np.count_nonzero(of_kind & ~is_crowd)) - tp, matched_ious
            steps = (np.clip([one.score for one in predicted], 0, 1) * STEPS).astype(int)
            for verdict in (TP, FP):
                np.add.at(self.counts["by_score"][:, verdict], steps[verdicts == verdict], 1)
        self.counts["counts"] += counts
        total = counts.sum(0)
        return number(ratio(2 * total[TP], 2 * total[TP] + total[FP] + total[FN]))

    def compute(self) -> Rows:
        """Return the numbers of `METRIC`."""
        counts = self.counts["counts"]
        columns, whole = _scores(counts), _scores(counts.sum(0, keepdims=True))
        names = {"instance_f1": "f1", "instance_precision": "precision", "instance_recall": "recall"}
        numbers = {name: whole[short][0] for name, short in names.items()}
        numbers |= {"matched_iou": whole["matched"][0], "mean_instance_f1": mean(columns["f1"])}
        numbers |= _best(self.counts["by_score"], int(counts[:, [TP, FN]].sum()))
        return Rows(
            per_class={
                **{name: columns[short] for name, short in names.items()},
                "matched_iou": columns["matched"],
                "objects": tuple((counts[:, TP] + counts[:, FN]).tolist()),
                "objects_predicted": tuple((counts[:, TP] + counts[:, FP]).tolist()),
            },
            whole=numbers,
        )


def _judge(predicted: Sequence[Instance], true: np.ndarray, crowd: np.ndarray) -> tuple[np.ndarray, int]:
    """Return TP, FP or FN (= counts nowhere) of each prediction of a class in an image, and the sum of matched IoUs."""
    areas = true.sum((1, 2))
    ious = np.zeros((len(predicted), len(true)))
    crowded: np.ndarray = np.any(crowd, axis=0)
    verdicts = np.full(len(predicted), FP)
    for index, one in enumerate(predicted):
        mask = one.mask
        both, area = true[:, mask].sum(1), np.count_nonzero(mask)
        ious[index] = both / np.maximum(areas + area - both, 1)
        if 2 * np.count_nonzero(mask & crowded) > area:
            verdicts[index] = FN
    pairs = match_objects(ious)
    verdicts[[index for index, _ in pairs]] = TP
    return verdicts, sum(round(SCALE * float(ious[pair])) for pair in pairs)


def _best(by_score: np.ndarray, true: int) -> dict[str, float]:
    """Return the highest F1 of all thresholds and the highest threshold that gives it."""
    tp, fp = by_score[::-1].cumsum(0).T
    if not true + tp[-1] + fp[-1]:
        return {"best_f1": math.nan, "best_score": math.nan}
    f1 = ratio(2 * tp, tp + fp + true)
    best = int(np.nanargmax(f1))
    return {"best_f1": float(f1[best]), "best_score": (STEPS - best) / STEPS}


def _scores(counts: np.ndarray) -> dict[str, tuple[float, ...]]:
    """Return the ratios of (K, 4) counts, each a tuple of K values."""
    tp, fp, fn, total = counts.T
    return {
        "f1": floats(ratio(2 * tp, 2 * tp + fp + fn)),
        "precision": floats(ratio(tp, tp + fp)),
        "recall": floats(ratio(tp, tp + fn)),
        "matched": floats(np.where(tp > 0, ratio(total, tp) / SCALE, math.nan)),
    }


METRIC = Metric(
    name="instance_f1",
    title="objects matched at an IoU of 0.5",
    accumulator=InstanceF1,
    of_objects=True,
    image=Number(
        name="image_f1",
        label="F1",
        title="F1 of objects",
        definition="The instance_f1 of one image alone; it ranks images and is never averaged into instance_f1; "
        "undefined where there are neither true nor predicted objects.",
    ),
    numbers=(
        Number(
            name="instance_f1",
            heading="F1",
            title="F1 of objects",
            label="F1",
            last_line="instance_f1",
            monitored=True,
            definition="2 TP / (2 TP + FP + FN) of objects of a class over the whole set, or of all classes together: "
            "predictions, by falling score within an image, are matched one to one to true objects of their class with "
            "a mask IoU of at least 0.5; undefined where there are neither.",
        ),
        Number(
            name="instance_precision",
            heading="Prec.",
            title="precision of objects",
            last_line="instance_precision",
            definition="TP / (TP + FP) of objects, matched as for instance_f1; undefined where none is predicted.",
        ),
        Number(
            name="instance_recall",
            heading="Recall",
            title="recall of objects",
            last_line="instance_recall",
            monitored=True,
            definition="TP / (TP + FN) of objects, matched as for instance_f1; undefined where the truth has none.",
        ),
        Number(
            name="matched_iou",
            heading="IoU",
            title="IoU of matched objects",
            last_line="matched_iou",
            definition="Mean IoU of the masks of matched objects, as for instance_f1; undefined where none is matched.",
        ),
        Number(
            name="mean_instance_f1",
            title="mean F1 over classes",
            monitored=True,
            definition="Mean of instance_f1 over the classes where it is defined.",
        ),
        Number(
            name="best_f1",
            title="F1 of objects, best threshold",
            monitored=True,
            definition="The highest instance_f1 of all classes together that leaving out the objects below one score "
            "gives; thresholds are multiples of 0.001.",
        ),
        Number(
            name="best_score",
            title="that threshold",
            format="plain",
            definition="The score below which objects are left out for best_f1, the highest of those that give it; "
            "what `--score` of a prediction may be, chosen on these very images, so that best_f1 flatters a little.",
        ),
        Number(
            name="objects",
            heading="objects",
            format="count",
            definition="True objects of the class in the whole set, crowds left out.",
        ),
        Number(
            name="objects_predicted",
            format="count",
            definition="Predicted objects of the class in the whole set.",
        ),
    ),
)
