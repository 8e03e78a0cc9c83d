"""What each image of a split adds to the counts of a semantic evaluation, for comparisons over images."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from segatlas.metrics import MetricSet

MATRIX, SIZES = "confusion.matrix", "object_size.sizes"
"""Names in the state of a set of metrics."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageCounts:
    """Counts of single images, in the split's order. Letters: N images, K classes.

    with_sizes: sizes of objects were counted.
    """

    with_sizes: bool
    _pixels: list[np.ndarray] = field(default_factory=list)
    _objects: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def empty(cls, metrics: MetricSet) -> ImageCounts | None:
        """Return the counts of no image for these metrics; None where they count no pixels of classes."""
        names = metrics.state()
        return cls(with_sizes=SIZES in names) if MATRIX in names else None

    def add(self, metrics: MetricSet) -> None:
        """Take in metrics that have counted the next image and nothing else."""
        state = metrics.state()
        matrix = state[MATRIX]
        self._pixels.append(np.stack([matrix.sum(1), matrix.sum(0), np.diag(matrix)], axis=1))
        if self.with_sizes:
            self._objects.append(state[SIZES])

    @property
    def pixels(self) -> np.ndarray:
        """(N, K, 3) int64: labelled pixels of each class in the truth, in the prediction, and in both."""
        return np.array(self._pixels, np.int64)

    @property
    def objects(self) -> np.ndarray | None:
        """(N, K, 3, 4) int64 as of `segatlas.metrics.object_size`; None where sizes were not counted."""
        return np.array(self._objects, np.int64) if self.with_sizes else None
