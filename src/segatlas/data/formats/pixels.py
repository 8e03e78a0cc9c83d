"""Small exact operations on (H, W, C) arrays: upright, plain types, number of channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from segatlas.errors import DataError


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (1..8) of an (H, W, C) array."""
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    # After the transpose, 5 is right; 6 still runs from right to left, 8 from bottom to top, 7 both ways.
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def plain_type(array: np.ndarray) -> np.ndarray:
    """Return uint8, uint16 or float32 in native byte order, keeping values; truth values become 0 and 255."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype in (np.uint8, np.float32):
        return array
    if array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 65535:
        return array.astype(np.uint16)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and is told as that
        return array.astype(np.float32)


def fit_channels(array: np.ndarray, channels: int | None, name: str | Path = "image") -> np.ndarray:
    """Return `array` (H, W, C) with `channels` channels, where that has one plain meaning.

    One channel is repeated to three; three become one by luma (ITU-R 601); of four, the first three are taken where
    three (or their luma) are wanted. Anything else raises DataError. None keeps what is there.
    """
    have = array.shape[2]
    if channels is None or have == channels:
        return array
    if have == 1 and channels == 3:
        return np.repeat(array, 3, axis=2)
    if have in (3, 4) and channels == 1:
        return _luma(array)
    if have == 4 and channels == 3:
        return np.ascontiguousarray(array[..., :3])
    raise DataError(f"has {have} channels, expected {channels}", name)


def can_convert(channels: int, wanted: int) -> bool:
    """Whether `fit_channels` has a way from one number of channels to another."""
    return channels == wanted or (channels, wanted) in {(1, 3), (3, 1), (4, 1), (4, 3)}


def common_channels(found: Iterable[int]) -> int:
    """Return the channels that images of several numbers are read with; of no image, 3.

    Grey ones among colour ones are repeated, so that no colour is lost; else what most have, of equals the most.
    """
    counts = Counter(found)
    if set(counts) == {1, 3}:
        return 3
    return max(counts, key=lambda value: (counts[value], value), default=3)


def _luma(array: np.ndarray) -> np.ndarray:
    red, green, blue = (array[..., i : i + 1] for i in range(3))
    if array.dtype.kind == "f":
        return (0.299 * red + 0.587 * green + 0.114 * blue).astype(array.dtype)
    # Pillow's integers, so that grey images agree with `convert("L")`.
    total = red.astype(np.uint32) * 19595 + green.astype(np.uint32) * 38470 + blue.astype(np.uint32) * 7471
    return ((total + 0x8000) >> 16).astype(array.dtype)
