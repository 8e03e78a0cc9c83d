"""The record that every task's file ends with. It holds no torch: heavy parts are named and imported when needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Task:
    """All that a task decides; everything else asks this record instead of comparing names.

    name: as in `task:` of a recipe. title: for people. target: name of the type of truth that datasets must give, of
    `segatlas.structures`. metrics: names of files of `segatlas.metrics` that an evaluation counts, in the order of the
    report; the first number of theirs that may be monitored ranks models, the first metric's score of an image ranks
    images. result: what a `Segmentation` of this task can give. writers: kinds of `--save` that make sense, the first
    is the default. tables: of these kinds, those that make one file of a whole folder -> its name. sheet: function
    "module:name" that takes (image, target, result, palette) and draws one row: image, truth, prediction, error.
    """

    name: str
    title: str
    target: str
    metrics: tuple[str, ...]
    result: tuple[str, ...]
    writers: tuple[str, ...]
    sheet: str
    tables: Mapping[str, str] = field(default_factory=dict)
