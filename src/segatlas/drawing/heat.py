"""Numbers 0..1 as colours over the image that they belong to, and the bar that says what the colours mean."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from segatlas.drawing.maps import Colors, heat_image
from segatlas.drawing.text import INK, MUTED, canvas, font, shortened, text_width

LEAST_OPAQUE, MOST_OPAQUE = 0.3, 0.75
"""How much of the colour is seen where the heat is 0 and where it is 1."""


def heat_overlay(image: np.ndarray, values: np.ndarray, colors: Colors = "turbo") -> np.ndarray:
    """Return the image in grey under the colours of numbers (H, W) of 0..1: the hotter, the less of it is seen.

    Args:
        image: (H, W, 3) uint8 RGB.
        values: (H, W) float 0..1.
        colors: see `COLOR_MAPS`.
    """
    grey = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.float32)
    part = LEAST_OPAQUE + (MOST_OPAQUE - LEAST_OPAQUE) * np.clip(np.nan_to_num(values), 0, 1)[..., None]
    mixed: np.ndarray = grey * (1 - part) + heat_image(values, colors) * part + 0.5
    return mixed.astype(np.uint8)


def with_color_bar(figure: np.ndarray, colors: Colors, *, low: str, high: str, title: str) -> np.ndarray:
    """Return a figure (H, W, 3) on paper with a bar of colours below it: what 0 and 1 mean, and what is measured.

    Texts that are wider than the figure make it wider; a long title is cut.
    """
    width = figure.shape[1]
    size = int(np.clip(width / 55, 12, 17))
    margin, gap, height = size, size // 2, round(0.9 * size)
    names = text_width(low, size) + text_width(high, size) + 2 * gap
    whole = max(width, names + 8 * size + 2 * margin)
    title = shortened(title, size, whole - 2 * margin)
    paper, pen = canvas(whole, figure.shape[0] + round(3.6 * size))
    paper.paste(Image.fromarray(figure), ((whole - width) // 2, 0))
    top = figure.shape[0] + round(0.5 * size)
    pen.text((whole / 2, top + size * 0.5), title, fill=INK, font=font(size, title), anchor="mm")
    middle = top + round(1.9 * size)
    length = min(whole - 2 * margin - names, 24 * size)
    left = (whole - length) // 2 + (text_width(low, size) - text_width(high, size)) // 2
    ramp = heat_image(np.linspace(0, 1, length)[None].repeat(height, axis=0), colors)
    paper.paste(Image.fromarray(ramp), (left, middle - height // 2))
    pen.rectangle((left - 1, middle - height // 2 - 1, left + length, middle + height - height // 2), outline=MUTED)
    pen.text((left - gap, middle), low, fill=INK, font=font(size, low), anchor="rm")
    pen.text((left + length + gap, middle), high, fill=INK, font=font(size, high), anchor="lm")
    return np.asarray(paper)
