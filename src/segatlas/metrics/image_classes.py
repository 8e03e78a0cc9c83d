"""Classes of whole images: how often the true one is the first, or among the first five, that a network names.

For `pretrain` alone: what is learned there is no task, so no task counts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segatlas.metrics.number import Number
from segatlas.metrics.sums import Sums

if TYPE_CHECKING:
    from torch import Tensor

FEW = 5

NUMBERS = {
    number.name: number
    for number in (
        Number(
            name="top1",
            definition="fraction of the images of val whose class has the highest score",
            title="top-1 accuracy",
            label="top-1",
            monitored=True,
        ),
        Number(
            name="top5",
            definition="fraction of the images of val whose class is among the five of the highest scores",
            title="top-5 accuracy",
            label="top-5",
            monitored=True,
        ),
    )
}
"""What `train.metric` may be in a pre-training; the first is the default."""


class ImageClassCounts(Sums):
    """Counts over images of one or several processes: all of them, and those found at first and among few."""

    def __init__(self) -> None:
        super().__init__(images=(), top1=(), top5=())

    def update(self, scores: Tensor, classes: Tensor) -> None:
        """Count a batch: scores (N, K) of any scale, classes (N,) int64, 0..K-1.

        Classes of equal scores stand in the order of their numbers.
        """
        best = scores.float().sort(dim=1, descending=True, stable=True).indices[:, :FEW]
        hits = best == classes.unsqueeze(1)
        self.counts["images"] += len(classes)
        self.counts["top1"] += int(hits[:, :1].sum())
        self.counts["top5"] += int(hits.sum())

    def compute(self) -> dict[str, float]:
        """Return the name of each number -> its value; NaN without an image."""
        images = int(self.counts["images"])
        return {name: int(self.counts[name]) / images if images else float("nan") for name in NUMBERS}
