"""The record that every task's file ends with. It holds no torch: heavy parts are named and imported when needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Task:
    """All that a task decides; everything else asks this record instead of comparing names.

    name: as in `task:` of a recipe. title: for people. target: name of the type of truth that datasets must give, of
    `segatlas.structures`. metrics: names in `segatlas.metrics.METRICS` that an evaluation counts, in the order of the
    report. validation: those of them that are counted while training. monitored: scores that `train.metric` may name,
    and how they are called; the first is the default; all are fractions 0..1, higher for better. result: what a
    `Segmentation` of this task can give. writers: kinds of `--save` that make sense, the first is the default. sheet:
    function "module:name" that takes (image, target, result, palette) and draws one row of image, truth, prediction,
    error. sections: functions "module:name" that make the parts of a report.
    """

    name: str
    title: str
    target: str
    metrics: tuple[str, ...]
    validation: tuple[str, ...]
    monitored: Mapping[str, str]
    result: tuple[str, ...]
    writers: tuple[str, ...]
    sheet: str
    sections: tuple[str, ...] = ()
