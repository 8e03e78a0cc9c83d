"""A class map, its confidence or its errors as one image of the same size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from segatlas.data.formats.palettes import voc_palette
from segatlas.labels import IGNORE

Color = tuple[int, int, int]
Colors = Literal["viridis", "turbo", "magma"]

COLOR_MAPS = {"viridis": cv2.COLORMAP_VIRIDIS, "turbo": cv2.COLORMAP_TURBO, "magma": cv2.COLORMAP_MAGMA}
"""viridis for probabilities, turbo for heat over an image, magma for uncertainty."""

IGNORE_COLOR: Color = (0, 0, 0)
NOT_TINTED: Color = (0, 0, 0)
"""A class of this colour, background as a rule, is left out of overlays: the image shows as it is."""
RIGHT: Color = (72, 72, 72)
WRONG: Color = (235, 64, 52)
LINE: Color = (255, 235, 59)
LINE_EDGE: Color = (20, 20, 20)


def viewable(image: np.ndarray) -> np.ndarray:
    """Return any (H, W, C) image as (H, W, 3) uint8 to look at: its first three channels, or the first one as grey.

    8 bits are shown as they are; other types are stretched from the 1st to the 99th percentile of the image.
    """
    channels = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    if channels.dtype == np.uint8:
        return np.ascontiguousarray(channels)
    values = channels.astype(np.float32)
    finite = np.isfinite(values)
    low, high = np.percentile(values[finite], (1, 99)) if finite.any() else (0.0, 0.0)
    span = high - low if high > low else 1.0
    level: np.ndarray = np.clip((np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / span, 0, 1)
    return (level * 255 + 0.5).astype(np.uint8)


def source_view(array: np.ndarray, kind: str, palette: Sequence[Color]) -> np.ndarray:
    """Return a further input of any kind as (H, W, 3) uint8 to look at.

    Args:
        array: (H, W, C), or (H, W).
        kind: "label" of codes, which have the colours of classes, and those that are none the next ones; else an image.
        palette: RGB colours of the classes.
    """
    if kind != "label":
        return viewable(np.atleast_3d(array))
    codes = array.reshape(array.shape[:2])
    further = voc_palette(IGNORE)[len(palette) :]
    return color_mask(codes, [*palette, *further][:IGNORE])


def color_mask(class_map: np.ndarray, palette: Sequence[Color]) -> np.ndarray:
    """Return (H, W, 3) uint8: each pixel in its class's colour, black where the value is no class.

    Args:
        class_map: (H, W) integers, 0 or larger.
        palette: K RGB colours.
    """
    highest = int(class_map.max(initial=0))
    table = np.zeros((max(highest + 1, len(palette)), 3), np.uint8)
    table[: len(palette)] = np.asarray(palette, np.uint8).reshape(-1, 3)
    image: np.ndarray = table[class_map]
    return image


def boundaries(class_map: np.ndarray) -> np.ndarray:
    """Return (H, W) bool: pixels whose right or lower neighbour has another class."""
    edge = np.zeros(class_map.shape, bool)
    edge[:, :-1] |= class_map[:, :-1] != class_map[:, 1:]
    edge[:-1] |= class_map[:-1] != class_map[1:]
    return edge


def boundary_image(image: np.ndarray, class_map: np.ndarray, color: Color = LINE) -> np.ndarray:
    """Return the image with a line, edged in black, along every change of class.

    The line's width follows the image's size, so that it stays visible when a large image is shown small.

    Args:
        image: (H, W, 3) uint8 RGB.
        class_map: (H, W) integers.
        color: RGB colour of the line.
    """
    width = max(1, round(max(image.shape[:2]) / 900))
    line = grow(boundaries(class_map), width)
    halo = grow(line, width + 2) & ~line
    drawn = image.copy()
    drawn[halo] = (drawn[halo] * 0.35 + np.asarray(LINE_EDGE) * 0.65).astype(np.uint8)
    drawn[line] = color
    return drawn


def heat_image(values: np.ndarray, colors: Colors = "viridis") -> np.ndarray:
    """Return (H, W, 3) uint8: numbers (H, W) of 0..1 as colours, see `COLOR_MAPS`; NaN is drawn black."""
    known = np.isfinite(values)
    level = np.clip(np.nan_to_num(values) * 255.0 + 0.5, 0, 255).astype(np.uint8)
    heat: np.ndarray = cv2.cvtColor(cv2.applyColorMap(level, COLOR_MAPS[colors]), cv2.COLOR_BGR2RGB)
    heat[~known] = IGNORE_COLOR
    return heat


def confidence_image(confidence: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8: 0 dark blue, through green, to 1 yellow (viridis, on the fixed scale 0..1).

    Args:
        confidence: (H, W) float 0..1, the probability of the chosen class; NaN is drawn black.
    """
    return heat_image(confidence)


def object_boundaries(
    image: np.ndarray, ids: np.ndarray, classes: np.ndarray, palette: Sequence[Color], fade: float = 0.45
) -> np.ndarray:
    """Return the image, faded, with the inner boundary of every object in its class's colour.

    The line lies inside the object, as wide as that of `boundary_image`, at least two pixels; so two objects that touch
    have a line each. The border of the image is no boundary.

    Args:
        image: (H, W, 3) uint8 RGB.
        ids: (H, W) the number of each pixel's object, below 0 = none. Of a class map it is the map itself.
        classes: (H, W) the class of each pixel's object; what is no class has no line.
        palette: K RGB colours.
        fade: how far the image goes towards white, 0..1.
    """
    width = max(2, round(max(image.shape[:2]) / 300))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
    numbers = ids.astype(np.float32)  # whole numbers up to 2^24 are exact
    line = cv2.dilate(numbers, kernel) != cv2.erode(numbers, kernel)
    line &= (ids >= 0) & (classes >= 0) & (classes < len(palette))
    drawn: np.ndarray = (image * (1 - fade) + 255 * fade).astype(np.uint8)
    drawn[line] = np.asarray(palette, np.uint8).reshape(-1, 3)[classes[line]]
    return drawn


def error_image(class_map: np.ndarray, label: np.ndarray, ignore: int = IGNORE) -> np.ndarray:
    """Return (H, W, 3) uint8: right pixels dim grey, wrong ones red, ignored ones black.

    Args:
        class_map: (H, W) predicted classes.
        label: (H, W) true classes, `ignore` where there is no truth.
        ignore: the label value that is not judged.
    """
    image = np.empty((*label.shape, 3), np.uint8)
    image[:] = RIGHT
    image[class_map != label] = WRONG
    image[label == ignore] = IGNORE_COLOR
    return image


def blend(image: np.ndarray, class_map: np.ndarray, palette: Sequence[Color], alpha: float = 0.5) -> np.ndarray:
    """Return the image tinted with class colours; pixels of no class, or of a black one, stay as they are.

    Args:
        image: (H, W, 3) uint8 RGB.
        class_map: (H, W) integers.
        palette: K RGB colours.
        alpha: fraction of the class colour, 0..1.
    """
    tinted = cv2.addWeighted(image, 1 - alpha, color_mask(class_map, palette), alpha, 0)
    plain = class_map >= len(palette)
    plain |= not_tinted(class_map, palette)
    tinted[plain] = image[plain]
    return tinted


def not_tinted(class_map: np.ndarray, palette: Sequence[Color]) -> np.ndarray:
    """Return (H, W) bool: the pixels of classes that overlays leave out, see NOT_TINTED."""
    plain = np.zeros(class_map.shape, bool)
    for index, color in enumerate(palette):
        if tuple(color) == NOT_TINTED:
            plain |= class_map == index
    return plain


def grow(mask: np.ndarray, width: int) -> np.ndarray:
    """Return a (H, W) mask, or line, made wider: `width` pixels where it was one."""
    if width <= 1:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)
