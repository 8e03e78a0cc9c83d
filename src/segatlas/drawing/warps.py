"""How one image lies in another: the lines of a regular lattice of the one, drawn over the other."""

from __future__ import annotations

import numpy as np

from segatlas.drawing.maps import LINE, LINE_EDGE, Color, boundaries, grow

LINES = 12
"""Lines across the longer side."""


def warped_lattice(image: np.ndarray, points: np.ndarray, color: Color = LINE, lines: int = LINES) -> np.ndarray:
    """Return the image with the lines of a regular lattice of a source, where they come to lie.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (H, W, 2), the pixel (x, y) of the source that each pixel of the image shows.
        color: RGB colour of the lines.
        lines: of the lattice across the longer side.
    """
    step = max(max(image.shape[:2]) / lines, 1.0)
    cells = np.floor(points / step).astype(np.int64)
    line = boundaries(cells[..., 0]) | boundaries(cells[..., 1])
    halo = grow(line, 3) & ~line
    drawn = image.copy()
    drawn[halo] = (drawn[halo] * 0.5 + np.asarray(LINE_EDGE) * 0.5).astype(np.uint8)
    drawn[line] = color
    return drawn
