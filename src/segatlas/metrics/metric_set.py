"""The metrics of one evaluation together: one update, one state, one set of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from segatlas.metrics.metric import Accumulator, Metric, Prediction
from segatlas.metrics.scores import IMAGES, Scores

if TYPE_CHECKING:
    from segatlas.structures import Target


class MetricSet:
    """Takes one image at a time; `compute` may be asked at any moment. Made by `segatlas.metrics.create`.

    The counts of several processes are merged one after the other: not every array of a state may be summed.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Metric, Accumulator]],
        classes: Sequence[str],
        left_out: Sequence[Metric] = (),
    ):
        self.classes = tuple(classes)
        self.images = 0
        self._parts = tuple(parts)
        self._left_out = tuple(left_out)

    def update(self, result: Prediction, target: Target) -> float:
        """Count one image.

        Returns:
            Its own score, by the first metric; NaN where that is undefined.

        Raises:
            DataError: result and target do not fit.
        """
        scores = [accumulator.update(result, target) for _, accumulator in self._parts]
        self.images += 1
        return scores[0]

    def state(self) -> dict[str, np.ndarray]:
        """Return a copy of what was counted: arrays by METRIC.NAME, and the number of images."""
        found = {IMAGES.name: np.array([self.images], np.int64)}
        for metric, accumulator in self._parts:
            found |= {f"{metric.name}.{name}": array for name, array in accumulator.state().items()}
        return found

    def merge(self, state: Mapping[str, np.ndarray]) -> None:
        """Take in what another set of the same metrics, classes and options has counted."""
        if state.keys() != (own := self.state()).keys():
            raise ValueError(f"state holds {sorted(state)}, expected {sorted(own)}")
        for metric, accumulator in self._parts:
            start = f"{metric.name}."
            accumulator.merge({k.removeprefix(start): array for k, array in state.items() if k.startswith(start)})
        self.images += int(state[IMAGES.name][0])

    def compute(self) -> Scores:
        """Return all numbers for the images counted so far."""
        rows = [accumulator.compute() for _, accumulator in self._parts]
        return Scores(
            classes=self.classes,
            images=self.images,
            metrics=tuple(metric for metric, _ in self._parts),
            left_out=self._left_out,
            columns={name: values for row in rows for name, values in row.per_class.items()},
            whole={name: value for row in rows for name, value in row.whole.items()},
            matrices=tuple(matrix for row in rows for matrix in row.matrices),
            settings=tuple(row.setting for row in rows if row.setting),
        )
