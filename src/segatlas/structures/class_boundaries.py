"""Where classes of a label map meet, and labels of these boundaries: each of their pixels carries its own class.

The idea of the class of a boundary in place of yes or no: Sun et al. 2019, "MSFNet", https://arxiv.org/abs/1911.07217.
"""

from __future__ import annotations

import numpy as np

from segatlas.errors import UsageError
from segatlas.labels import IGNORE

LARGEST_WIDTH = 1000


def near_another_class(labels: np.ndarray, reach: int, ignore: int = IGNORE) -> np.ndarray:
    """Return (H, W) bool: labelled pixels with a labelled pixel of another class at most `reach` away (chessboard).

    Args:
        labels: (H, W) uint8: 0..K-1, or `ignore`.
        reach: pixels, at least 1.
        ignore: the label value that is no class.
    """
    import cv2  # here: listing records and reading recipes does without

    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    # Ignored pixels must never win, and the frame takes no part (cv2's default border).
    # Numbers go round so that `ignore` becomes 0 for the maximum and 255 for the minimum.
    above, below = labels - np.uint8(ignore), labels + np.uint8(255 - ignore)
    near: np.ndarray = cv2.dilate(above, kernel) != above
    near |= cv2.erode(below, kernel) != below
    near &= labels != ignore
    return near


def class_boundaries(labels: np.ndarray, *, width: int = 2, rest: int = IGNORE, ignore: int = IGNORE) -> np.ndarray:
    """Return multi-class boundary labels, (H, W) uint8: a pixel near another class keeps its own, others become `rest`.

    Pixels without a label stay so, and a border to them, or to the image's frame, is no boundary.

    Args:
        labels: (H, W) uint8: 0..K-1, or `ignore`.
        width: a pixel is of a boundary where another class is at most so many rows and columns away: the boundary is
            `width` pixels wide on each side.
        rest: what pixels of no boundary become: `ignore`, or K, the class "none".
        ignore: the label value that is no class.

    Raises:
        UsageError: labels of another form, a width that is too small or large, or a `rest` that is a class of them.
    """
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.dtype != np.uint8:
        raise UsageError(f"labels: got {labels.dtype} of shape {labels.shape}, expected uint8 of (height, width)")
    if not 1 <= width <= LARGEST_WIDTH:
        raise UsageError(f"width: got {width}, expected 1..{LARGEST_WIDTH} pixels")
    if not 0 <= rest <= IGNORE:
        raise UsageError(f"rest: got {rest}, expected 0..{IGNORE}")
    if rest != ignore and bool((labels == rest).any()):
        raise UsageError(f"rest: {rest} is a class of these labels; take a number that is none")
    near = near_another_class(labels, width, ignore)
    return np.where(near | (labels == ignore), labels, np.uint8(rest))
