"""Metrics: from predictions and truths to numbers that own their definition. Holds no torch.

A file of this folder makes a metric: one class that counts, and the record `METRIC` at its end. Its name in `metrics`
of a task's record (`segatlas.tasks`) makes it counted, printed, stored, explained and, if the record says so, watched
while training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from segatlas.metrics.metric import Accumulator, Metric, Prediction, Rows
from segatlas.metrics.metric_set import MetricSet
from segatlas.metrics.number import Number
from segatlas.metrics.scores import Scores
from segatlas.metrics.sections import Matrix
from segatlas.metrics.sums import Sums
from segatlas.renamed import old_names
from segatlas.tasks import TASKS

__all__ = [
    "METRICS",
    "Accumulator",
    "Matrix",
    "Metric",
    "MetricSet",
    "Number",
    "Prediction",
    "Rows",
    "Scores",
    "Sums",
    "create",
    "create_for_training",
    "load_metric",
    "monitored",
    "monitoring",
]

METRICS: dict[str, str] = {name: f"{__name__}.{name}" for task in TASKS.values() for name in task.metrics}
"""Name -> module, of every metric that some task counts."""


def load_metric(name: str) -> Metric:
    """Import the file of a metric, which loads no torch, and return its record."""
    record: Metric = import_module(f"{__name__}.{name}").METRIC
    return record


def create(names: Sequence[str], classes: Sequence[str], options: Mapping[str, Any] | None = None) -> MetricSet:
    """Return a new set that has counted nothing.

    Args:
        names: of metrics, as in `Task.metrics`; the first gives the score of a single image.
        classes: names of the K classes.
        options: the recipe's `eval:` by key; what is not in it is as the metrics' own defaults.
    """
    given, records = dict(options or {}), [load_metric(name) for name in names]
    wanted = [record for record in records if not record.switch or given.get(record.switch, True)]
    parts = [
        (record, record.accumulator(classes, **{key: given[key] for key in record.options if key in given}))
        for record in wanted
    ]
    return MetricSet(parts, classes, [record for record in records if record not in wanted])


def monitored(names: Sequence[str]) -> dict[str, Number]:
    """Return the numbers that `train.metric` may name, of these metrics; the first is the default."""
    records = [load_metric(name) for name in names]
    return {number.name: number for record in records for number in record.numbers if number.monitored}


def monitoring(names: Sequence[str]) -> tuple[str, ...]:
    """Return those of these metrics that training counts at each validation: they give a number to monitor."""
    return tuple(name for name in names if monitored([name]))


def create_for_training(
    names: Sequence[str], classes: Sequence[str], options: Mapping[str, Any] | None = None
) -> MetricSet:
    """Return a new set of those of `monitoring`, by the recipe's `eval:` but for what `Metric.training` says."""
    given = dict(options or {})
    for name in monitoring(names):
        given |= load_metric(name).training
    return create(monitoring(names), classes, given)


__getattr__ = old_names("segatlas.metrics")
