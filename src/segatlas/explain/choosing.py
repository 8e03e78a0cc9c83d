"""What of a model and an image is meant: classes by name, a part of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from segatlas.config.messages import unknown
from segatlas.data.formats.masks import read_mask
from segatlas.errors import DataError, UsageError
from segatlas.structures import Result

Box: TypeAlias = tuple[int, int, int, int]
Region: TypeAlias = Literal["image", "predicted"] | Box | np.ndarray | str | Path
"""A part of an image: all of it, the pixels that are predicted to be of the class in question, a box (top, left,
bottom, right) in pixels, the last two exclusive, or a mask: (H, W) bool, or a file, inside where it is not 0."""

MOST_PREDICTED = 6
"""Classes that are taken where none is named."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ChosenRegion:
    """A part of an image in words, and its pixels; of "predicted" they differ from class to class and are not here.

    inside: (H, W) bool.
    """

    name: str
    inside: np.ndarray | None


def find_classes(names: Sequence[str | int], classes: Sequence[str]) -> list[int]:
    """Return the classes that names or numbers mean, each once.

    Raises:
        UsageError: there is no such class; the message names the nearest.
    """
    found = []
    for name in names:
        text = str(name)
        if text in classes:
            found.append(list(classes).index(text))
        elif text.isdecimal() and int(text) < len(classes):
            found.append(int(text))
        else:
            known = unknown("class", text, classes)
            raise UsageError(
                f"class: got {text!r}: {known}; the model has {len(classes)} classes, 0..{len(classes) - 1}"
            )
    return list(dict.fromkeys(found))


def predicted_classes(result: Result, most: int = MOST_PREDICTED) -> list[int]:
    """Return the classes that a result has, that of most pixels first.

    Raises:
        UsageError: it has none.
    """
    counts: dict[int, int] = {}
    if result.class_map is not None:
        values, numbers = np.unique(result.class_map, return_counts=True)
        counts = dict(zip(values.tolist(), numbers.tolist(), strict=True))
    else:
        for one in result.instances:
            counts[one.class_index] = counts.get(one.class_index, 0) + one.area
    if not counts:
        raise UsageError("class: the model finds nothing in this image; name the class to explain")
    return sorted(counts, key=lambda kind: (-counts[kind], kind))[:most]


def predicted_pixels(result: Result, kind: int, size: tuple[int, int]) -> np.ndarray:
    """Return (H, W) bool, the pixels that a result gives a class: of objects, those of its objects."""
    if result.class_map is not None:
        inside: np.ndarray = result.class_map == kind
        return inside
    inside = np.zeros(size, bool)
    for one in result.instances:
        if one.class_index == kind:
            inside |= one.mask
    return inside


def find_region(region: Region, size: tuple[int, int]) -> ChosenRegion:
    """Return the part of an image of (H, W) pixels that is meant.

    Raises:
        UsageError: no region, a box outside of the image or without pixels.
        DataError: a mask of another size or without pixels, or one that cannot be read.
    """
    if isinstance(region, str) and region in ("image", "predicted"):
        name = "the whole image" if region == "image" else "the pixels predicted as it"
        return ChosenRegion(name=name, inside=np.ones(size, bool) if region == "image" else None)
    if isinstance(region, str | Path):
        return ChosenRegion(name=f"mask {Path(region).name}", inside=_mask(read_mask(region, lossy=True), size, region))
    if isinstance(region, np.ndarray):
        return ChosenRegion(name="a mask", inside=_mask(region, size, None))
    if isinstance(region, tuple | list) and len(region) == 4:
        return ChosenRegion(name=f"box {', '.join(map(str, region))}", inside=_box(region, size))
    raise UsageError(f"region: got {region!r}, expected image, predicted, a box (top, left, bottom, right) or a mask")


def _box(box: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    top, left, bottom, right = box
    told = f"box: got {', '.join(map(str, box))} (top, left, bottom, right)"
    if not (0 <= top <= bottom <= size[0] and 0 <= left <= right <= size[1]) and top <= bottom and left <= right:
        raise UsageError(f"{told}, which is not inside the image of {size[1]} x {size[0]} pixels")
    if top >= bottom or left >= right:
        raise UsageError(f"{told}, which has no pixels; expected top < bottom and left < right")
    inside = np.zeros(size, bool)
    inside[top:bottom, left:right] = True
    return inside


def _mask(mask: np.ndarray, size: tuple[int, int], path: str | Path | None) -> np.ndarray:
    if mask.shape != size:
        found = " x ".join(map(str, mask.shape[::-1])) if mask.ndim == 2 else f"of shape {mask.shape}"
        raise DataError(f"the mask is {found} pixels, the image {size[1]} x {size[0]}", path)
    inside: np.ndarray = mask != 0
    if not inside.any():
        raise DataError("the mask is empty: all of its pixels are 0", path)
    return inside
