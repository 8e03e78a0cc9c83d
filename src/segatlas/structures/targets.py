"""Truths by type. A dataset gives one type; a task says which one it trains with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from segatlas.labels import IGNORE

if TYPE_CHECKING:
    from torch import Tensor

Array: TypeAlias = "np.ndarray | Tensor"


class SemanticTarget(NamedTuple):
    """A class for each pixel.

    labels: (H, W) uint8, 0..K-1 or 255.
    annotated: (K,) bool, the classes that were looked for in this image; None = all. A pixel whose label is one of the
        others is known to have one of these others, and which of them is not known.
    present: (K,) bool, the classes that the image shows somewhere, where nothing says where; None = labels say it.
    """

    labels: Array
    annotated: Array | None = None
    present: Array | None = None

    @property
    def certain(self) -> np.ndarray:
        """Labels (H, W) uint8 with 255 where the class is one of those that were not annotated."""
        labels = np.asarray(self.labels)
        if self.annotated is None or np.asarray(self.annotated).all():
            return labels
        table = np.arange(256, dtype=np.uint8)
        table[np.flatnonzero(~np.asarray(self.annotated).astype(bool))] = IGNORE
        return table[labels]


class SegmentsTarget(NamedTuple):
    """One segment for each pixel.

    ids: (H, W) int32, row of the tables below; -1 = ignore.
    classes: (S,) int64, class of each segment. things: (S,) bool, an object that is counted, not stuff. crowd: (S,)
        bool, several objects that were not told apart: nothing is learned or scored there.
    """

    ids: Array
    classes: Array
    things: Array
    crowd: Array

    @property
    def labels(self) -> np.ndarray:
        """The same as a `SemanticTarget` has it: (H, W) uint8, the class of each pixel, 255 for none and for crowds."""
        table = np.append(np.where(np.asarray(self.crowd).astype(bool), IGNORE, np.asarray(self.classes)), IGNORE)
        return table.astype(np.uint8)[np.asarray(self.ids)]


class InstancesTarget(NamedTuple):
    """Objects that may overlap, have holes and several parts.

    masks: (M, H, W) bool. classes: (M,) int64, 0..K-1. crowd: (M,) bool, several objects that were not told apart.
    padding: (H, W) bool, beyond the image; None = nothing is.
    """

    masks: Array
    classes: Array
    crowd: Array
    padding: Array | None = None


Target = SemanticTarget | SegmentsTarget | InstancesTarget
