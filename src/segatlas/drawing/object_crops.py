"""One object of an image, large: the image around it, its true mask, its predicted mask."""

from __future__ import annotations

import numpy as np

from segatlas.drawing.maps import LINE, Color, boundaries, grow, viewable

CROP_TITLES = ("image", "truth", "prediction")
MARGIN = 0.4
"""Of the object's longer side, on every side."""

FEWEST = 48
"""Pixels of a side of the part that is shown, where the image has them."""

TRUE: Color = (46, 160, 67)
FOUND: Color = (47, 129, 247)

Box = tuple[int, int, int, int]


def object_row(
    image: np.ndarray, truth: np.ndarray | None, found: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the part of an image around an object three times, see CROP_TITLES: as it is, and with each mask tinted.

    Args:
        image: (H, W, C) of any type.
        truth: (H, W) bool, None = nothing is there.
        found: (H, W) bool, None = nothing was found.
    """
    masks = [mask for mask in (truth, found) if mask is not None and mask.any()]
    top, left, bottom, right = part_around(np.any(masks, axis=0) if masks else np.ones(image.shape[:2], bool))
    plain = viewable(image[top:bottom, left:right])
    shown = [None if mask is None else mask[top:bottom, left:right] for mask in (truth, found)]
    return plain, _tinted(plain, shown[0], TRUE), _tinted(plain, shown[1], FOUND)


def part_around(mask: np.ndarray) -> Box:
    """Return (top, left, bottom, right) of the part of a (H, W) mask's image that shows it."""
    ends = []
    for axis in (1, 0):
        inside = np.flatnonzero(mask.any(axis=axis))
        ends.append((int(inside[0]), int(inside[-1]) + 1))
    margin = round(MARGIN * max(end - begin for begin, end in ends))
    wanted = []
    for (begin, end), length in zip(ends, mask.shape, strict=True):
        more = max(margin, (FEWEST - (end - begin) + 1) // 2)
        wanted.append((max(begin - more, 0), min(end + more, length)))
    (top, bottom), (left, right) = wanted
    return top, left, bottom, right


def _tinted(image: np.ndarray, mask: np.ndarray | None, color: Color) -> np.ndarray:
    drawn = image.copy()
    if mask is not None:
        drawn[mask] = (image[mask].astype(np.uint16) * 2 + np.array(color)) // 3
        drawn[grow(boundaries(mask), max(1, max(image.shape[:2]) // 200))] = LINE
    return drawn
