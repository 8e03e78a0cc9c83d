"""How thick what a mask shows is: its area by the length of its border. No skeleton and no distance map is needed."""

from __future__ import annotations

import math

import numpy as np


def border_lengths(label: np.ndarray) -> np.ndarray:
    """Return the length in pixels of the border of each value, (256,) float64.

    The neighbours across which a label changes are counted along rows, columns and both diagonals; a straight border
    crosses them in a proportion that says its length whatever its direction (Cauchy and Crofton), to 5 %. The edge of
    the image is no border, for what it cuts goes on.

    Args:
        label: (H, W) uint8.
    """
    lengths = np.zeros(256)
    pairs = (
        (label[:, 1:], label[:, :-1], 1.0),
        (label[1:], label[:-1], 1.0),
        (label[1:, 1:], label[:-1, :-1], math.sqrt(0.5)),
        (label[1:, :-1], label[:-1, 1:], math.sqrt(0.5)),
    )
    for one, other, weight in pairs:
        differ = one != other
        for side in (one, other):
            lengths += weight * np.bincount(side[differ], minlength=256)
    found: np.ndarray = lengths * math.pi / 8
    return found


def thickness(area: float, border: float) -> float | None:
    """Return the width in pixels of the strip with this area and border; None without a border.

    Of strips and curves it is their width, of a disc its radius, of a square half its side.
    """
    return float(2 * area / border) if border > 0 else None
