"""Boundary regions and contours of a class map.

Boundary IoU: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021.
Boundary F-score: contour matching as in Csurka et al., "What is a good evaluation measure for semantic segmentation?",
BMVC 2013, here with counts summed over the set and chessboard distance, as in the boundary region.

All classes are done in one shot: a pixel has another class within reach exactly when the largest or the smallest label
within reach differs from its own, and cv2's dilate and erode give both. Letters: H W image, K classes.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

Map = np.ndarray
"""(H, W) uint8: 0..K-1, or `ignore`."""


def boundary_reach(size: tuple[int, int], fraction: float) -> int:
    """Return the width d in pixels of the boundary region of a (H, W) image: a fraction of its diagonal, at least 1."""
    return max(1, round(fraction * math.hypot(*size)))


def near_another_class(labels: Map, reach: int, ignore: int = 255) -> np.ndarray:
    """Return (H, W) bool: labelled pixels with a labelled pixel of another class at most `reach` away (chessboard)."""
    is_ignored = labels == ignore
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    # Ignored pixels must never win: their value is the lowest value for the maximum and the highest one for the
    # minimum. The frame does not take part in either (cv2's default border).
    highest = cv2.dilate(np.where(is_ignored, 0, labels).astype(np.uint8), kernel)
    lowest = cv2.erode(np.where(is_ignored, 255, labels).astype(np.uint8), kernel)
    near: np.ndarray = ((highest != labels) | (lowest != labels)) & ~is_ignored
    return near


def boundary_region(labels: Map, width: int, ignore: int = 255) -> np.ndarray:
    """Return (H, W) bool: the boundary regions of all classes, and all labelled pixels within `width` of the frame."""
    found = near_another_class(labels, width, ignore)
    edge = labels != ignore
    edge[width:-width, width:-width] = False
    found |= edge
    return found


def boundary_counts(prediction: Map, label: Map, num_classes: int, width: int, ignore: int = 255) -> np.ndarray:
    """Count the pixels of boundary regions.

    Args:
        prediction: (H, W) uint8, 0..K-1, and `ignore` where the label is ignored.
        label: (H, W) uint8, 0..K-1 or `ignore`.
        num_classes: K.
        width: of the boundary region, in pixels.
        ignore: the label value that is not judged.

    Returns:
        (K, 3) int64: pixels in both boundary regions of the class, in the truth's boundary region, in the prediction's
        boundary region.
    """
    true_boundary, predicted_boundary = (
        boundary_region(label, width, ignore),
        boundary_region(prediction, width, ignore),
    )
    both = true_boundary & predicted_boundary & (label == prediction)
    columns = [label[both], label[true_boundary], prediction[predicted_boundary]]
    return np.stack([np.bincount(column, minlength=num_classes) for column in columns], axis=1).astype(np.int64)


def contour_counts(prediction: Map, label: Map, num_classes: int, reach: int, ignore: int = 255) -> np.ndarray:
    """Count contour pixels and those with a partner of the same class within reach. Arguments as in `boundary_counts`.

    Returns:
        (K, 4) int64: true contour pixels, those of them with a predicted one near, predicted contour pixels, those of
        them with a true one near.
    """
    true_contour = np.where(near_another_class(label, 1, ignore), label, ignore)
    predicted_contour = np.where(near_another_class(prediction, 1, ignore), prediction, ignore)
    counts = np.zeros((num_classes, 4), np.int64)
    counts[:, 0] = np.bincount(true_contour.ravel(), minlength=256)[:num_classes]
    counts[:, 2] = np.bincount(predicted_contour.ravel(), minlength=256)[:num_classes]
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    for index in np.flatnonzero((counts[:, 0] > 0) & (counts[:, 2] > 0)):
        true, predicted = (true_contour == index).astype(np.uint8), (predicted_contour == index).astype(np.uint8)
        counts[index, 1] = np.count_nonzero(true & cv2.dilate(predicted, kernel))
        counts[index, 3] = np.count_nonzero(predicted & cv2.dilate(true, kernel))
    return counts
