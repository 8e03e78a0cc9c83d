"""The record that every metric's file ends with, and what its class must be able to do. Holds no torch.

A record owns all that is ever said about its numbers: name, definition, heading, title, how they are written, whether
training may watch them. Terminal, Markdown, eval.json, report.html and the documentation are made from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from segatlas.metrics.number import Number
from segatlas.metrics.sections import Matrix


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What a metric computed. NaN = undefined.

    per_class: name of a number -> one value a class, in the classes' order. whole: name -> value of the whole set.
    matrices: further parts of a report. setting: what was counted how, in words, "" = there is nothing to say.
    """

    per_class: Mapping[str, Sequence[float]]
    whole: Mapping[str, float]
    matrices: tuple[Matrix, ...] = ()
    setting: str = ""


class Prediction(Protocol):
    """What was found in one image, at its own size; asking for what a model cannot give raises TaskError."""

    @property
    def semantic(self) -> np.ndarray:
        """(H, W) class of each pixel."""
        ...

    @property
    def instances(self) -> Any:
        """Sequence of `segatlas.structures.Instance`."""
        ...

    @property
    def panoptic(self) -> Any:
        """`segatlas.structures.Panoptic`."""
        ...


class Accumulator(Protocol):
    """Takes one image at a time. Made with the names of the K classes and the options that its record lists."""

    def update(self, result: Prediction, target: Any) -> float:
        """Count one image; `target` is of the type that the task names.

        Returns:
            Its own score, NaN where that is undefined or the record has no `image`.

        Raises:
            DataError: result and target do not fit; nothing was counted then.
        """
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Return a copy of what was counted: arrays of int64 or float by name."""
        ...

    def merge(self, state: Mapping[str, np.ndarray]) -> None:
        """Take in what another object made with the same arguments has counted."""
        ...

    def compute(self) -> Rows:
        """Return all numbers for the images counted so far."""
        ...


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric: the stem of its file, what it is called, the class that counts, and every number that it gives.

    numbers: in the order of tables. image: the score of one image alone that `update` returns, None = it has none; the
    images of a report are ranked by that of the task's first metric. switch: the key of `eval:` that leaves it out,
    "" = it is always counted. options: keys of `eval:` that its class takes as keywords. training: what they are at the
    validations of a training, whatever the recipe says: what costs much and is not monitored is left to `eval`.
    of_objects: it counts objects, so tables leave out classes that have none, such as stuff.
    """

    name: str
    title: str
    accumulator: Callable[..., Accumulator]
    numbers: tuple[Number, ...]
    image: Number | None = None
    switch: str = ""
    options: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    of_objects: bool = False
