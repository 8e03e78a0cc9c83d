"""Recall by the size of the objects in the truth, with COCO's bounds: small < 32 x 32 <= medium < 96 x 96 <= large."""

from __future__ import annotations

import cv2
import numpy as np

SIZES = ("small", "medium", "large")
BOUNDS = (32 * 32, 96 * 96)
"""Smallest number of pixels of a medium and of a large object."""


def size_counts(prediction: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """Count objects and their pixels by size.

    An object is an 8-connected region of one class in the truth (touching objects of one class count as one: a semantic
    label cannot tell them apart). Its size is its number of pixels in the label's own resolution.

    Args:
        prediction: (H, W) uint8.
        label: (H, W) uint8, 0..K-1; higher values are left out.
        num_classes: K.

    Returns:
        (K, 3, 3) int64: class x (small, medium, large) x (objects, their pixels, those of them predicted right).
    """
    counts = np.zeros((num_classes, len(SIZES), 3), np.int64)
    for index in np.flatnonzero(np.bincount(label.ravel(), minlength=num_classes)[:num_classes]):
        mask = (label == index).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(mask)
        window = np.s_[y : y + height, x : x + width]
        total, objects, stats, _ = cv2.connectedComponentsWithStats(mask[window], connectivity=8)
        right = np.bincount(objects[prediction[window] == index], minlength=total)[1:]
        pixels = stats[1:, cv2.CC_STAT_AREA]
        bucket = np.digitize(pixels, BOUNDS)
        for column, amount in enumerate((np.ones_like(pixels), pixels, right)):
            np.add.at(counts[index, :, column], bucket, amount)
    return counts
