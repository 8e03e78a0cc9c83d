"""Bring smeared masks back to their classes.

With two classes, each value goes to the nearer one. With more, a value between two classes may equal a third one, so
pixels that are in doubt take the class of the nearest pixel that is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from segatlas.data.checks.reading import JPEG_REACH
from segatlas.data.checks.stats import solid_pixels, unpack


def snap(codes: np.ndarray, real: Sequence[int], *, by_color: bool, is_lossy: bool) -> np.ndarray:
    """Return (H, W) int32 codes that are all in `real`.

    Args:
        codes: (H, W) integers, packed colours where `by_color`.
        real: the codes that are classes or ignore, at least one.
        by_color: whether codes are packed colours.
        is_lossy: whether the mask was a JPEG: values up to JPEG_REACH from a class are taken for it.
    """
    found, inverse = np.unique(codes, return_inverse=True)
    near, far = _nearest(found, real, by_color)
    nearest = near[inverse.reshape(codes.shape)]
    if len(real) <= 2:
        return nearest
    sure = (far <= (JPEG_REACH if is_lossy else 0))[inverse.reshape(codes.shape)]
    sure &= ~_ramps(_grey(codes) if by_color else codes.astype(np.int32))
    if sure.all() or not sure.any():
        return nearest
    _, labels = cv2.distanceTransformWithLabels(
        (~sure).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    code_of_label = np.zeros(int(labels.max()) + 1, np.int32)
    code_of_label[labels[sure]] = nearest[sure]
    snapped: np.ndarray = code_of_label[labels]
    return snapped


def _ramps(values: np.ndarray) -> np.ndarray:
    """Return (H, W) bool: pixels in no area of their own, strictly between what lies up to three pixels off."""
    found = np.zeros(values.shape, bool)
    for view, target in ((values, found), (values.T, found.T)):
        for reach in (1, 2, 3):
            before, after = view[: -2 * reach], view[2 * reach :]
            low, high = np.minimum(before, after), np.maximum(before, after)
            middle = view[reach:-reach]
            target[reach:-reach] |= (middle > low) & (middle < high)
    return found & ~solid_pixels(values)


def _nearest(found: np.ndarray, real: Sequence[int], by_color: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest of `real` to each of `found`, and how far it is."""
    points = _channels(found) if by_color else found.astype(np.int64)[:, None]
    best, far = np.zeros(len(found), np.int32), np.full(len(found), np.iinfo(np.int64).max)
    for code in real:
        target = np.array(unpack(code) if by_color else (code,), np.int64)
        away = np.abs(points - target).max(axis=1)
        closer = away < far
        best[closer], far[closer] = code, away[closer]
    return best, far


def _channels(packed: np.ndarray) -> np.ndarray:
    wide = packed.astype(np.int64)
    return np.stack([wide >> 16, wide >> 8 & 255, wide & 255], axis=-1)


def _grey(packed: np.ndarray) -> np.ndarray:
    grey: np.ndarray = _channels(packed).sum(axis=-1)
    return grey
