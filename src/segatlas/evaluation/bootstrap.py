"""Paired bootstrap over images: by how much two models differ on other images of the same kind.

A draw takes N of the N images with replacement, the same ones for every run. The counts of the images drawn are added
up, and every number is computed from the sums as from those of the whole set: so the mIoU of a draw is that of one
confusion matrix, no mean over images. Draw d takes row d of `numpy.random.default_rng(seed).integers(0, N, (draws,
N))`.

Letters: N images, K classes, D draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segatlas.evaluation.image_counts import ImageCounts
from segatlas.metrics.object_size import HIT, PIXELS, SIZES, iou_by_class
from segatlas.metrics.ratios import ratio

DRAWS = 10_000
PERCENTILES = (2.5, 97.5)
"""Of the draws: the interval between them is told."""

CLASS = "iou."
"""What the name of a class's IoU begins with."""

CHUNK = 1 << 22
"""Image numbers drawn, or sums held, at once."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Which numbers are computed from sums. classes: names. small: indices of the classes named as small."""

    classes: tuple[str, ...]
    small: tuple[int, ...] = ()
    with_sizes: bool = False

    def values(self, pixels: np.ndarray, objects: np.ndarray | None) -> dict[str, np.ndarray]:
        """Compute the numbers by name, each (D,) float64, NaN where undefined.

        Args:
            pixels: (D, K, 3) sums of `ImageCounts.pixels`.
            objects: (D, K, 3, 4) sums of `ImageCounts.objects`.
        """
        truth, predicted, both = np.moveaxis(pixels, -1, 0)
        iou, recall = ratio(both, truth + predicted - both), ratio(both, truth)
        found = {"miou": mean_of(iou)}
        if self.small:
            chosen = list(self.small)
            found["small_classes_iou"] = mean_of(iou[:, chosen])
            found["small_classes_recall"] = mean_of(recall[:, chosen])
        if self.with_sizes and objects is not None:
            for place, size in enumerate(SIZES):
                one = objects[:, :, place]
                found[f"iou_{size}"] = mean_of(iou_by_class(one))
                found[f"recall_{size}"] = ratio(one[..., HIT].sum(1), one[..., PIXELS].sum(1))
        return found | {CLASS + name: iou[:, index] for index, name in enumerate(self.classes)}


def mean_of(values: np.ndarray) -> np.ndarray:
    """Return the mean over the last axis of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(-1), defined.sum(-1))


def of_whole_set(counts: ImageCounts, measured: Measured) -> dict[str, float]:
    """Return the numbers of all images, each once."""
    objects = counts.objects
    sums = None if objects is None else objects.sum(0, keepdims=True)
    found = measured.values(counts.pixels.sum(0, keepdims=True), sums)
    return {name: float(value[0]) for name, value in found.items()}


def resampled(images: int, draws: int, seed: int, step: int) -> Iterator[np.ndarray]:
    """Yield the images of each draw, `step` draws at a time: (d, N) numbers 0..N-1, the same whatever the step."""
    generator = np.random.default_rng(seed)
    for start in range(0, draws, step):
        yield generator.integers(0, images, (min(step, draws - start), images))


def bootstrap(
    runs: Sequence[ImageCounts], measured: Measured, *, draws: int = DRAWS, seed: int = 0
) -> list[dict[str, np.ndarray]]:
    """Return the numbers of each run in each draw, (D,) float64 by name; all runs have the images of one draw alike."""
    counts = [_flat(run, measured) for run in runs]
    images = len(counts[0])
    found: list[list[Mapping[str, np.ndarray]]] = [[] for _ in runs]
    step = max(1, CHUNK // max(images, counts[0].shape[1]))
    for chosen in resampled(images, draws, seed, step):
        places = chosen + np.arange(len(chosen))[:, None] * images
        times = np.bincount(places.ravel(), minlength=len(chosen) * images).reshape(len(chosen), images)
        weights = times.astype(np.float64)
        for run, flat in enumerate(counts):
            found[run].append(measured.values(*_unflat(weights @ flat, measured)))  # sums below 2^53 are exact
    return [{name: np.concatenate([part[name] for part in parts]) for name in parts[0]} for parts in found]


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the PERCENTILES of the draws in which a number is defined; NaN where it never is."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.percentile(defined, PERCENTILES)
    return float(low), float(high)


def _flat(run: ImageCounts, measured: Measured) -> np.ndarray:
    """Return (N, F) float64: all that is added up of an image."""
    parts = [run.pixels]
    if measured.with_sizes and run.objects is not None:
        parts += [run.objects]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1).astype(np.float64)


def _unflat(sums: np.ndarray, measured: Measured) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the sums (D, F) as (D, K, 3) pixels and (D, K, 3, 4) objects."""
    count = len(measured.classes)
    pixels, objects = sums[:, : 3 * count].reshape(-1, count, 3), sums[:, 3 * count :]
    return pixels, objects.reshape(-1, count, len(SIZES), 4) if measured.with_sizes else None
