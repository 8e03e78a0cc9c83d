"""IoU and recall of the classes that somebody names as small, such as poles and traffic signs: `eval.small_classes`."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from segatlas.errors import UsageError
from segatlas.metrics.label_maps import label_maps
from segatlas.metrics.metric import Metric, Prediction, Rows
from segatlas.metrics.number import Number
from segatlas.metrics.ratios import mean, ratio
from segatlas.metrics.sums import Sums

if TYPE_CHECKING:
    from segatlas.structures import SemanticTarget

OPTION = "small_classes"


class SmallClasses(Sums):
    """Counts pixels of the named classes, (S, 3): in the truth, predicted, both. UsageError for a name of no class."""

    def __init__(self, classes: Sequence[str], small_classes: Sequence[str] = ()):
        self.chosen = indices_of(small_classes, classes)
        self.classes = tuple(classes)
        super().__init__(pixels=(len(self.chosen), 3))

    def update(self, result: Prediction, target: SemanticTarget) -> float:
        """Count one image; it has no score of its own."""
        prediction, label = label_maps(result, target, len(self.classes))
        for row, index in enumerate(self.chosen):
            true, found = label == index, prediction == index
            self.counts["pixels"][row] += [np.count_nonzero(mask) for mask in (true, found, true & found)]
        return math.nan

    def compute(self) -> Rows:
        """Return the numbers of `METRIC`."""
        truth, predicted, both = self.counts["pixels"].T
        names = ", ".join(self.classes[index] for index in self.chosen)
        return Rows(
            per_class={},
            whole={
                "small_classes_iou": mean(ratio(both, truth + predicted - both)),
                "small_classes_recall": mean(ratio(both, truth)),
            },
            setting=f"small classes: {names}" if names else "",
        )


def indices_of(names: Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    """Return the classes of these names, upper and lower case being one where that leaves one class.

    Raises:
        UsageError: a name of no class, with the nearest, or a class named twice.
    """
    found: list[int] = []
    for name in names:
        alike = [index for index, known in enumerate(classes) if known.casefold() == name.casefold()]
        index = classes.index(name) if name in classes else alike[0] if len(alike) == 1 else None
        if index is None:
            close = difflib.get_close_matches(name.casefold(), [known.casefold() for known in classes], n=1)
            near = next((known for known in classes if close and known.casefold() == close[0]), None)
            shown = ", ".join(classes[:20]) + (", …" if len(classes) > 20 else "")
            hint = f"did you mean {near!r}? " if near else ""
            raise UsageError(f"eval.{OPTION}: no class {name!r}; {hint}There are: {shown}")
        if index in found:
            raise UsageError(f"eval.{OPTION}: {classes[index]!r} is named twice")
        found.append(index)
    return tuple(found)


METRIC = Metric(
    name="small_classes",
    title="classes named as small",
    accumulator=SmallClasses,
    switch=OPTION,
    options=(OPTION,),
    numbers=(
        Number(
            name="small_classes_iou",
            title="mean IoU, small classes",
            definition="Mean of iou over the classes named in eval.small_classes with TP + FP + FN > 0.",
        ),
        Number(
            name="small_classes_recall",
            title="mean recall, small classes",
            definition="Mean of recall over the classes named in eval.small_classes that occur in the truth.",
        ),
    ),
)
