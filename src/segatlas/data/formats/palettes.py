"""Colours for classes where a dataset brings none."""

from __future__ import annotations

Color = tuple[int, int, int]


def voc_palette(count: int) -> tuple[Color, ...]:
    """Return the first `count` (at most 256) colours of the PASCAL VOC rule, as RGB 0..255.

    Bits 0, 1, 2 of the index go to the top bits of red, green, blue, bits 3, 4, 5 to the next lower ones, and so on:
    neighbouring indices differ strongly, and index 0 is black.
    """
    return tuple(_voc_color(index) for index in range(count))


def _voc_color(index: int) -> Color:
    color = [0, 0, 0]
    for bit in range(8):
        color[bit % 3] |= ((index >> bit) & 1) << (7 - bit // 3)
    return color[0], color[1], color[2]
