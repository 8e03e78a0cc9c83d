"""Panoptic maps as PNG files: the number of a pixel's segment is R + 256 G + 65536 B; 0 is ignore."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from segatlas.data.formats.stored import Stored, codes_of
from segatlas.errors import DataError
from segatlas.files import whole_file

IGNORED = 0
MOST_SEGMENTS = 1 << 24


def segment_numbers(stored: Stored, path: str | Path) -> np.ndarray:
    """Return the numbers (H, W) int32 of a map. Grey files hold them as they are.

    Raises:
        DataError: a palette, or numbers that a compression with loss may have changed.
    """
    if stored.lossy:
        raise DataError("is compressed with loss, which changes the numbers of segments; write PNG", path)
    if stored.color == "palette":
        raise DataError("has a palette: is it an image of the classes? expected R + 256 G + 65536 B a pixel", path)
    codes = codes_of(stored, path)
    if codes.ndim == 2:
        return codes.astype(np.int32)
    wide = codes.astype(np.int32)
    numbers: np.ndarray = wide[..., 0] | wide[..., 1] << 8 | wide[..., 2] << 16
    return numbers


def write_map(path: Path, numbers: np.ndarray) -> None:
    """Write a map, (H, W) of 0..2^24 - 1, whole or not at all. DataError where a number is larger."""
    if numbers.size and not 0 <= int(numbers.min()) <= int(numbers.max()) < MOST_SEGMENTS:
        raise DataError(
            f"segment {int(numbers.max())} cannot be written: three bytes hold 0..{MOST_SEGMENTS - 1}", path
        )
    wide = numbers.astype(np.uint32)
    colors = np.stack([wide & 255, wide >> 8 & 255, wide >> 16], axis=-1).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        Image.fromarray(colors, "RGB").save(temporary, format="PNG")
