"""One confusion matrix over the whole set, and all that follows from it: IoU, Dice, precision, recall, accuracy, kappa.

TP, FP, FN are the pixels of a class rightly predicted, wrongly predicted and missed, summed over the whole set of
images; pixels that the truth ignores (255) are left out of everything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segatlas.metrics.label_maps import label_maps
from segatlas.metrics.metric import Metric, Prediction, Rows
from segatlas.metrics.number import Number
from segatlas.metrics.ratios import floats, mean, number, ratio
from segatlas.metrics.sections import Matrix
from segatlas.metrics.sums import Sums

if TYPE_CHECKING:
    from segatlas.structures import SemanticTarget


class Confusion(Sums):
    """Counts pixels by true and predicted class: rows truth, columns prediction."""

    def __init__(self, classes: Sequence[str]):
        super().__init__(matrix=(len(classes), len(classes)))
        self.classes = tuple(classes)

    def update(self, result: Prediction, target: SemanticTarget) -> float:
        """Count one image; returns the miou of its own matrix, NaN where nothing is labelled."""
        from segatlas.ops import confusion  # brings torch, which records are listed without

        prediction, label = label_maps(result, target, len(self.classes))
        matrix = np.asarray(confusion(prediction, label, len(self.classes)))
        self.counts["matrix"] += matrix
        right = np.diag(matrix)
        return mean(ratio(right, matrix.sum(0) + matrix.sum(1) - right))

    def compute(self) -> Rows:
        """Return the numbers of `METRIC`, and the matrix."""
        matrix = self.counts["matrix"]
        right, truth, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
        total = int(matrix.sum())
        iou, dice = ratio(right, truth + predicted - right), ratio(2 * right, truth + predicted)
        recall = ratio(right, truth)
        accuracy = number(ratio(right.sum(), total))
        # float64 before the product: int64 would overflow from about 3 billion pixels on.
        expected = float(ratio((truth.astype(np.float64) * predicted).sum(), float(total) ** 2))
        return Rows(
            per_class={
                "iou": floats(iou),
                "dice": floats(dice),
                "precision": floats(ratio(right, predicted)),
                "recall": floats(recall),
                "support": tuple(truth.tolist()),
                "predicted": tuple(predicted.tolist()),
            },
            whole={
                "miou": mean(iou),
                "miou_ground_truth_only": mean(iou[truth > 0]),
                "mean_dice": mean(dice),
                "pixel_accuracy": accuracy,
                "mean_accuracy": mean(recall),
                "frequency_weighted_iou": float(np.nansum(iou * truth) / total) if total else math.nan,
                "kappa": (accuracy - expected) / (1 - expected) if expected < 1 else math.nan,
            },
            matrices=(Matrix(name="confusion", title="Confusion", names=self.classes, values=matrix.copy()),),
        )


METRIC = Metric(
    name="confusion",
    title="overlap and accuracy of pixels",
    accumulator=Confusion,
    image=Number(
        name="image_miou",
        label="mIoU",
        title="mean IoU",
        definition="The miou of one image alone (its own confusion matrix); it ranks images and is never averaged into "
        "miou; undefined where nothing is labelled.",
    ),
    numbers=(
        Number(
            name="iou",
            heading="IoU",
            last_line="miou",
            definition="Per class TP / (TP + FP + FN) from one confusion matrix over the whole set; undefined where "
            "the class occurs neither in the truth nor in the prediction.",
        ),
        Number(
            name="dice",
            heading="Dice",
            last_line="mean_dice",
            definition="Per class 2 TP / (2 TP + FP + FN) over the whole set; undefined where iou is.",
        ),
        Number(
            name="precision",
            heading="Prec.",
            definition="Per class TP / (TP + FP) over the whole set; undefined where the class is never predicted.",
        ),
        Number(
            name="recall",
            heading="Recall",
            last_line="mean_accuracy",
            definition="Per class TP / (TP + FN) over the whole set; undefined where the class does not occur in the "
            "truth.",
        ),
        Number(
            name="support",
            heading="pixels",
            of_sum=True,
            format="count",
            predicted="predicted",
            definition="Labelled pixels of the class in the truth of the whole set; the table prints them as a "
            "fraction of all labelled pixels.",
        ),
        Number(
            name="predicted",
            format="count",
            definition="Labelled pixels of the whole set that were predicted as the class.",
        ),
        Number(
            name="miou",
            title="mean IoU",
            label="mIoU",
            monitored=True,
            definition="Mean of iou over the classes with TP + FP + FN > 0.",
        ),
        Number(
            name="miou_ground_truth_only",
            title="mean IoU, ground truth only",
            definition="Mean of iou over the classes that occur in the truth.",
        ),
        Number(
            name="mean_dice",
            title="mean Dice",
            definition="Mean of dice over the classes with TP + FP + FN > 0.",
        ),
        Number(
            name="pixel_accuracy",
            title="pixel accuracy",
            monitored=True,
            definition="Fraction of all labelled pixels that were predicted right.",
        ),
        Number(
            name="mean_accuracy",
            title="mean accuracy",
            monitored=True,
            definition="Mean of recall over the classes that occur in the truth.",
        ),
        Number(
            name="frequency_weighted_iou",
            title="frequency-weighted IoU",
            definition="Sum over classes of iou x the class's fraction of the labelled pixels of the truth.",
        ),
        Number(
            name="kappa",
            title="Cohen's kappa",
            format="plain",
            definition="Cohen's kappa of truth and prediction: (a - e) / (1 - e), a = pixel accuracy, e = agreement "
            "expected from the two class distributions; undefined where e = 1.",
        ),
    ),
)
