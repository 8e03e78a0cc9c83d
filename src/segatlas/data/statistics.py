"""What a split holds: pixel counts of the classes and what follows from them, sizes and values of the images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from segatlas.data.dataset import SegmentationData
from segatlas.data.thickness import border_lengths, thickness
from segatlas.data.value_range import fitting_max, no_data_doubt, range_doubt
from segatlas.errors import DataError
from segatlas.structures import IGNORE, SegmentsTarget, SemanticTarget, Target

MOST_SIZES = 5


def count_classes(dataset: SegmentationData) -> np.ndarray:
    """Return the number of labelled pixels of each class over a whole split, (K,) int64."""
    return count_occurrences(dataset)[0]


def count_occurrences(dataset: SegmentationData) -> tuple[np.ndarray, np.ndarray]:
    """Return two counts of each class over a whole split, (K,) int64 each.

    They are its labelled pixels, and all pixels, labelled or not, of the images that show it.
    """
    counts, around = np.zeros(256, np.int64), np.zeros(256, np.int64)
    for index in range(len(dataset)):
        target = dataset.load(index).target
        if isinstance(target, SemanticTarget):
            label = target.certain
            own = np.bincount(label.ravel(), minlength=256)
            counts += own
            around += np.where(own > 0, label.size, 0)
    return counts[: len(dataset.classes)], around[: len(dataset.classes)]


def label_of(target: Target | None) -> np.ndarray | None:
    """Return (H, W) uint8 classes of a truth of any type, 255 where it says none; of objects the last one counts."""
    if target is None or isinstance(target, SemanticTarget):
        return None if target is None else target.certain
    kinds = np.asarray(target.classes).astype(np.uint8)
    if isinstance(target, SegmentsTarget):
        found: np.ndarray = np.append(kinds, np.uint8(IGNORE))[np.asarray(target.ids)]
        return found
    label = np.full(np.shape(target.masks)[1:], IGNORE, np.uint8)
    for mask, kind in zip(np.asarray(target.masks), kinds, strict=True):
        label[mask] = kind
    return label


def automatic_weights(counts: np.ndarray) -> np.ndarray:
    """Return one loss weight a class, mean 1 over the classes that occur.

    1 / ln(1.1 + fraction): rare classes weigh up to about ten times a class that fills the image (the form of ENet,
    Paszke et al. 2016, with a gentler constant). A class without a pixel gets 1.
    """
    fraction = counts / max(counts.sum(), 1)
    weights = 1.0 / np.log(1.1 + fraction)
    seen = counts > 0
    if seen.any():
        weights = weights / weights[seen].mean()
    weights[~seen] = 1.0
    return weights


def median_frequency_weights(counts: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Return one loss weight a class: the median of all classes' frequencies by its own (Eigen and Fergus 2015).

    The frequency of a class is its pixels by all pixels of the images that show it, see `count_occurrences`. A class
    without a pixel gets 1 and does not count for the median.
    """
    seen = counts > 0
    frequencies = counts / np.maximum(around, 1)
    weights = np.ones(len(counts))
    if seen.any():
        weights[seen] = np.median(frequencies[seen]) / frequencies[seen]
    return weights


@dataclass(frozen=True, kw_only=True)
class SplitStatistics:
    """Numbers about one split. Letters: K classes, C channels.

    heights and widths: (smallest, median, largest) in pixels. sizes: the commonest (H, W) with their counts. mean and
    std: per channel, of values / max_value, over all pixels. class_pixels and class_images: per class, pixels, and
    images that show it or are said to. thickness: per class, in pixels, None without a border. ignored: fraction of
    pixels with the label 255. peak: the largest value. doubt: what is doubtful about the range of values, "" where
    nothing is.
    skipped: text of each sample that was unusable.
    """

    split: str
    images: int
    heights: tuple[int, int, int]
    widths: tuple[int, int, int]
    sizes: tuple[tuple[tuple[int, int], int], ...]
    channels: int
    depths: dict[str, int]
    max_value: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    class_pixels: tuple[int, ...]
    class_images: tuple[int, ...]
    thickness: tuple[float | None, ...]
    ignored: float
    peak: float = 0.0
    doubt: str = ""
    skipped: tuple[str, ...] = ()

    @property
    def class_fractions(self) -> tuple[float, ...]:
        """Fraction of the labelled pixels, per class."""
        total = max(sum(self.class_pixels), 1)
        return tuple(pixels / total for pixels in self.class_pixels)

    @property
    def weights(self) -> tuple[float, ...]:
        """Loss weight of each class, see `automatic_weights`."""
        return tuple(float(weight) for weight in automatic_weights(np.array(self.class_pixels)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        counts = (self.class_pixels, self.class_fractions, self.class_images)
        rows = zip(self.classes, *counts, self.thickness, self.weights, strict=True)
        names = ("class", "pixels", "fraction", "images", "thickness", "weight")
        return {
            "images": self.images,
            "heights": dict(zip(("min", "median", "max"), self.heights, strict=True)),
            "widths": dict(zip(("min", "median", "max"), self.widths, strict=True)),
            "sizes": [{"height": size[0], "width": size[1], "images": count} for size, count in self.sizes],
            "channels": self.channels,
            "depths": self.depths,
            "largest_value": self.peak,
            "range_warning": self.doubt or None,
            "input": {"mean": list(self.mean), "std": list(self.std), "max_value": self.max_value},
            "classes": [dict(zip(names, row, strict=True)) for row in rows],
            "ignored_fraction": self.ignored,
            "skipped": list(self.skipped),
        }


@dataclass(frozen=True, kw_only=True)
class _SampleSums:
    size: tuple[int, int]
    depth: str
    lowest: float
    peak: float
    total: np.ndarray
    squares: np.ndarray
    labels: np.ndarray
    borders: np.ndarray
    shown: np.ndarray


def describe(
    dataset: SegmentationData,
    max_value: float | None = None,
    *,
    declared: float | None = None,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SplitStatistics:
    """Read a whole split and return its numbers. Samples that cannot be read are skipped and named.

    Args:
        dataset: one split.
        max_value: the image value that becomes 1; default: what fits the values found, see `fitting_max`.
        declared: the range that a recipe declares, which is compared with what is found; None = the default.
        jobs: threads that read; default: the processors, at most 8.
        progress: called with (samples read, samples in all).

    Raises:
        DataError: no sample could be read.
    """
    sums, skipped = [], []
    with ThreadPoolExecutor(max_workers=jobs or min(8, os.cpu_count() or 1)) as pool:
        for number, result in enumerate(pool.map(lambda i: _sample_sums(dataset, i), range(len(dataset))), start=1):
            if isinstance(result, DataError):
                skipped.append(str(result))
            else:
                sums.append(result)
            if progress:
                progress(number, len(dataset))
    if not sums:
        raise DataError(f"no sample of {dataset.split} can be read; the first fault: {skipped[0]}")
    depths = Counter(one.depth for one in sums)
    depth = depths.most_common(1)[0][0]
    peaks = [one.peak for one in sums if one.depth == depth]
    max_value = fitting_max(depth, max(peaks)) if max_value is None else max_value
    pixels = sum(one.size[0] * one.size[1] for one in sums)
    mean = np.sum([one.total for one in sums], axis=0) / pixels
    variance = np.sum([one.squares for one in sums], axis=0) / pixels - mean**2
    labels = np.sum([one.labels for one in sums], axis=0)
    borders = np.sum([one.borders for one in sums], axis=0)
    count = len(dataset.classes)
    return SplitStatistics(
        split=dataset.split,
        images=len(sums),
        heights=_spread([one.size[0] for one in sums]),
        widths=_spread([one.size[1] for one in sums]),
        sizes=tuple(Counter(one.size for one in sums).most_common(MOST_SIZES)),
        channels=dataset.channels,
        depths=dict(depths),
        max_value=max_value,
        mean=tuple(float(v) for v in mean / max_value),
        std=tuple(float(v) for v in np.sqrt(np.maximum(variance, 0)) / max_value),
        classes=tuple(dataset.classes),
        class_pixels=tuple(int(v) for v in labels[:count]),
        class_images=tuple(sum(int(one.shown[k]) for one in sums) for k in range(count)),
        thickness=tuple(thickness(labels[k], borders[k]) for k in range(count)),
        ignored=float(labels[count:].sum() / max(labels.sum(), 1)),
        peak=max(peaks),
        doubt=range_doubt(depth, len(peaks), max(peaks), declared)
        or no_data_doubt(depth, len(peaks), min(one.lowest for one in sums if one.depth == depth), declared)
        or "",
        skipped=tuple(skipped),
    )


def _sample_sums(dataset: SegmentationData, index: int) -> _SampleSums | DataError:
    try:
        sample = dataset.load(index)
    except DataError as error:
        return error
    channels = [sample.image[..., c].ravel() for c in range(sample.image.shape[2])]
    if sample.image.dtype == np.uint8:  # exact, and faster than sums of floats
        values = np.arange(256.0)
        counts = [np.bincount(channel, minlength=256) for channel in channels]
        total, squares = np.array([c @ values for c in counts]), np.array([c @ values**2 for c in counts])
    else:
        total = np.array([channel.sum(dtype=np.float64) for channel in channels])
        squares = np.array([np.square(channel, dtype=np.float64).sum() for channel in channels])
    labels, borders = np.zeros(256, np.int64), np.zeros(256)
    label = label_of(sample.target)
    if label is not None:
        labels, borders = np.bincount(label.ravel(), minlength=256), border_lengths(label)
    image, shown = sample.image, labels > 0
    present = getattr(sample.target, "present", None)
    if present is not None:  # said of the image as a whole
        shown[: len(present)] |= np.asarray(present).astype(bool)
    return _SampleSums(
        size=(image.shape[0], image.shape[1]),
        depth=image.dtype.name,
        lowest=float(image.min()),
        peak=float(image.max()),
        total=total,
        squares=squares,
        labels=labels,
        borders=borders,
        shown=shown,
    )


def _spread(values: list[int]) -> tuple[int, int, int]:
    return min(values), int(np.median(values)), max(values)
