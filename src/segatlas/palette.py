"""Class colours for data that brings none: as distinct as n colours can be, and always the same."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from segatlas.errors import UsageError

Color = tuple[int, int, int]

_LEVELS = range(0, 256, 17)
_LIGHTNESS = (30.0, 90.0)
"""CIE L* of usable colours: black and white are left out, they read as "nothing" on masks and pages."""


@lru_cache(maxsize=32)
def default_palette(count: int) -> tuple[Color, ...]:
    """Return `count` distinct RGB colours, 0..255 each.

    Each next colour is the one farthest, in CIE Lab, from all before it; so a shorter palette is the beginning of a
    longer one.

    Raises:
        UsageError: more colours than can be told apart by a computer (about 3000).
    """
    colors = np.array([(r, g, b) for r in _LEVELS for g in _LEVELS for b in _LEVELS], dtype=np.uint8)
    lab = _lab(colors)
    usable = (lab[:, 0] >= _LIGHTNESS[0]) & (lab[:, 0] <= _LIGHTNESS[1])
    colors, lab = colors[usable], lab[usable]
    if count > len(colors):
        raise UsageError(f"no default palette for {count} classes; give a palette (at most {len(colors)} are made)")
    distance = np.full(len(colors), np.inf)
    chosen: list[int] = []
    for _ in range(count):
        index = int(distance.argmax()) if chosen else int(lab[:, 1].argmax())  # the first one: the reddest
        chosen.append(index)
        distance = np.minimum(distance, ((lab - lab[index]) ** 2).sum(axis=1))
    return tuple((int(r), int(g), int(b)) for r, g, b in colors[chosen])


def _lab(colors: np.ndarray) -> np.ndarray:
    """Convert (n, 3) sRGB 0..255 to CIE L*a*b* under D65."""
    fraction = colors / 255.0
    linear = np.where(fraction <= 0.04045, fraction / 12.92, ((fraction + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / to_xyz.sum(axis=1)  # relative to white
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
