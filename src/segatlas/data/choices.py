"""What a recipe leaves open (`auto`) of its training samples, chosen from the images and masks of train.

A look at some samples gives an `Extent`; each choice is a plain function of it and returns a value and its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segatlas.config.transforms import Range, Size, TransformsConfig
from segatlas.data.checks.samples import spread
from segatlas.data.dataset import SegmentationData
from segatlas.data.statistics import label_of
from segatlas.data.thickness import border_lengths, thickness
from segatlas.data.transforms.geometry import resized_size
from segatlas.structures import InstancesTarget

SAMPLES = 24
"""Samples that are looked at, spread over train."""

LARGEST_LOOK = 2048
"""Rows and columns of a mask whose thickness is looked at."""

LARGEST_SIDE = 512
"""Of a training sample, in pixels."""

THIN = 8.0
"""Pixels of thickness that what the masks show keeps in the smallest image: two cells of a network at stride 4."""

WIDEST = 2.0
"""Largest factor of scale jitter; its inverse is the smallest. This is what photographs are trained with."""

WIDEST_PADDED = 1.5
"""The same where a shrunk image no longer fills the sample: at most a bit more than half of it would be empty."""

SMALLEST_JITTER = 1.1
"""A jitter below this is none."""

NO_UP = "images without an up, as from a microscope or from above? transforms.turns=true shows them in all turns"
"""What masks and images cannot tell, so that nothing is chosen."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Samples of a split that were looked at, in pixels as training sees them before jitter and crop.

    sizes: (height, width) of each. areas, borders: of each class, (K,), its labelled pixels and the length of its
    border, over all of them. ground: the commonest class, on which the others lie; None where the truth is objects.
    """

    sizes: tuple[Size, ...]
    areas: tuple[float, ...]
    borders: tuple[float, ...]
    ground: int | None = None

    @property
    def median(self) -> Size:
        """Median height and median width."""
        height, width = np.median(self.sizes, axis=0)
        return int(height), int(width)


def look_at(dataset: SegmentationData, resize: str | None = None, count: int = SAMPLES) -> Extent:
    """Load at most `count` samples. What cannot be loaded is left out: the check before a training says it better.

    Args:
        dataset: one split, with truths of any type.
        resize: `transforms.resize` of the recipe.
        count: of samples.
    """
    sizes: list[Size] = []
    areas, borders, has_ground = np.zeros(256), np.zeros(256), True
    for index in spread(len(dataset), count):
        try:
            sample = dataset.load(index)
        except Exception:  # whatever a file makes a reader raise is a fault of that file
            continue
        size = (sample.image.shape[0], sample.image.shape[1])
        after = resized_size(resize, size) if resize else size
        sizes.append(after)
        label = label_of(sample.target)
        if label is not None:
            factor = after[0] * after[1] / (size[0] * size[1])
            label = _middle(label)
            areas += factor * np.bincount(label.ravel(), minlength=256)
            borders += factor**0.5 * border_lengths(label)
            has_ground = not isinstance(sample.target, InstancesTarget)
    areas, borders = areas[: len(dataset.classes)], borders[: len(dataset.classes)]
    ground = int(np.argmax(areas)) if has_ground and areas.size else None
    return Extent(sizes=tuple(sizes), areas=tuple(areas), borders=tuple(borders), ground=ground)


def _middle(label: np.ndarray) -> np.ndarray:
    """Return the middle of a label, for one of a hundred million pixels takes seconds and says no more."""
    top, left = (max(side - LARGEST_LOOK, 0) // 2 for side in label.shape)
    return label[top : top + LARGEST_LOOK, left : left + LARGEST_LOOK]


def chosen_transforms(transforms: TransformsConfig, dataset: SegmentationData) -> tuple[TransformsConfig, list[str]]:
    """Return the section without `auto`, and a line for each choice that says the reason.

    Args:
        transforms: the recipe's.
        dataset: its train split.
    """
    if "auto" not in (transforms.crop, transforms.scale):
        return transforms, []
    extent, lines = look_at(dataset, transforms.resize), []
    if transforms.crop == "auto":
        crop, why = choose_crop(extent)
        transforms = transforms.model_copy(update={"crop": crop})
        lines.append(chosen("transforms.crop", crop, why))
    if transforms.scale == "auto":
        scale, why = choose_scale(extent, dataset.classes, transforms.crop_size)
        transforms = transforms.model_copy(update={"scale": scale})
        lines.append(chosen("transforms.scale", scale, why))
    if not transforms.turns and not transforms.flip_vertical:
        lines.append(NO_UP)
    return transforms, lines


def choose_crop(extent: Extent) -> tuple[Size, str]:
    """Return (h, w) of a training sample: the median image whole, unless it is too large.

    What a network sees around a pixel counts, and a whole image shows all there is. Of larger images a part is taken,
    smaller ones are padded.
    """
    if not extent.sizes:
        return (LARGEST_SIDE, LARGEST_SIDE), "no image could be looked at"
    height, width = extent.median
    crop = (min(height, LARGEST_SIDE), min(width, LARGEST_SIDE))
    which = "the images" if len(set(extent.sizes)) == 1 else "the median image"
    if crop == (height, width):
        return crop, f"{which} whole"
    return crop, f"of {height}x{width}, {which}; no side above {LARGEST_SIDE}"


def choose_scale(extent: Extent, classes: Sequence[str], crop: Size | None) -> tuple[Range | None, str]:
    """Return the factors between which the scale is drawn, one the inverse of the other; None where there is no room.

    Two things bound them: what the masks show must not be shrunk away, and the image must not leave most of the
    sample empty.

    Args:
        extent: of train.
        classes: their names.
        crop: (h, w) of a training sample, None: whole images.
    """
    if not extent.sizes:
        return (1 / WIDEST, WIDEST), "no image could be looked at"
    largest, why = WIDEST, "the usual one of photographs"
    height, width = extent.median
    filled = min(height / crop[0], width / crop[1]) if crop is not None else 1.0
    if max(filled, WIDEST_PADDED) < largest:
        largest, why = max(filled, WIDEST_PADDED), "smaller images would leave most of a sample empty"
    thin = typical_thickness(extent)
    if thin is not None and thin[1] / THIN < largest:
        largest = max(thin[1] / THIN, 1.0)
        why = f"{classes[thin[0]]} is {thin[1]:.1f} pixels thick, and {THIN:g} should be left of it"
    if largest < SMALLEST_JITTER:
        return None, why
    return (round(1 / largest, 2), round(largest, 2)), why


def typical_thickness(extent: Extent) -> tuple[int, float] | None:
    """Return class and thickness in pixels of what the masks are about: the median class, the ground left out.

    None where no other class has a border.
    """
    found = [
        (thick, index)
        for index, (area, border) in enumerate(zip(extent.areas, extent.borders, strict=True))
        if index != extent.ground and (thick := thickness(area, border)) is not None
    ]
    if not found:
        return None
    thick, index = sorted(found)[(len(found) - 1) // 2]
    return index, thick


def chosen(key: str, value: object, why: str) -> str:
    """Return the line that says a choice, as it would be given."""
    shown = "null" if value is None else str(list(value)).replace(" ", "") if isinstance(value, tuple) else str(value)
    return f"chosen {key}={shown}: {why}"
