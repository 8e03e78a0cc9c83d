"""Pixel counts of the classes and what follows from them."""

from __future__ import annotations

import numpy as np

from segatlas.data.dataset import SegmentationData


def count_classes(dataset: SegmentationData) -> np.ndarray:
    """Return the number of labelled pixels of each class over a whole split, (K,) int64."""
    counts = np.zeros(256, np.int64)
    for index in range(len(dataset)):
        label = dataset.load(index).label
        if label is not None:
            counts += np.bincount(label.ravel(), minlength=256)
    return counts[: len(dataset.classes)]


def automatic_weights(counts: np.ndarray) -> np.ndarray:
    """Return one loss weight a class, mean 1 over the classes that occur.

    1 / ln(1.1 + share): rare classes weigh up to about ten times a class that fills the picture (the form of ENet,
    Paszke et al. 2016, with a gentler constant). A class without a pixel gets 1.
    """
    share = counts / max(counts.sum(), 1)
    weights = 1.0 / np.log(1.1 + share)
    seen = counts > 0
    if seen.any():
        weights = weights / weights[seen].mean()
    weights[~seen] = 1.0
    return weights
