"""What objects a split holds: how many of each class, how large, how many in an image."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from segatlas.data.dataset import SegmentationData
from segatlas.errors import DataError
from segatlas.structures import InstancesTarget, Rle

SMALL, LARGE = 32**2, 96**2
"""Areas in pixels below which an object is small, and from which it is large, as COCO has them."""


@dataclass(frozen=True, kw_only=True)
class ClassObjects:
    """Objects of a class, crowds left out. areas: (smallest, median, largest) in pixels, None where there is none."""

    name: str
    objects: int
    images: int
    areas: tuple[int, int, int] | None
    small: int
    medium: int
    large: int
    crowds: int


@dataclass(frozen=True, kw_only=True)
class ObjectStatistics:
    """Objects of a split. images: those with a truth of objects. classes: things, and others that have objects.

    per_image: (smallest, median, largest) number. without: images without an object. skipped: text of each sample that
    was unusable.
    """

    split: str
    images: int
    classes: tuple[ClassObjects, ...]
    per_image: tuple[int, int, int]
    without: int
    skipped: tuple[str, ...] = ()

    @property
    def objects(self) -> int:
        """Objects of all classes."""
        return sum(one.objects for one in self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        spread = ("min", "median", "max")
        return {
            "images": self.images,
            "objects": self.objects,
            "per_image": dict(zip(spread, self.per_image, strict=True)),
            "images_without": self.without,
            "classes": [
                {
                    "class": one.name,
                    "objects": one.objects,
                    "images": one.images,
                    "area": None if one.areas is None else dict(zip(spread, one.areas, strict=True)),
                    "small": one.small,
                    "medium": one.medium,
                    "large": one.large,
                    "crowds": one.crowds,
                }
                for one in self.classes
            ],
            "skipped": list(self.skipped),
        }


class _Sizes(NamedTuple):
    """Objects of one image: class, area and whether it is a crowd, each (N,)."""

    kinds: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray


def describe_objects(
    dataset: SegmentationData, *, jobs: int | None = None, progress: Callable[[int, int], None] | None = None
) -> ObjectStatistics:
    """Read the objects of a split and return their numbers. Samples that cannot be read are skipped and named.

    Args:
        dataset: one split that gives objects (`target="InstancesTarget"`).
        jobs: threads that read; default: the processors, at most 8.
        progress: called with (samples read, samples in all).
    """
    found: list[_Sizes] = []
    skipped: list[str] = []
    with ThreadPoolExecutor(max_workers=jobs or min(8, os.cpu_count() or 1)) as pool:
        for number, sizes in enumerate(pool.map(lambda i: _sizes(dataset, i), range(len(dataset))), start=1):
            if isinstance(sizes, DataError):
                skipped.append(str(sizes))
            elif sizes is not None:
                found.append(sizes)
            if progress:
                progress(number, len(dataset))
    things = dataset.things or (True,) * len(dataset.classes)
    classes = [_of_class(name, kind, found) for kind, name in enumerate(dataset.classes)]
    counts = [int((~one.crowd).sum()) for one in found] or [0]
    return ObjectStatistics(
        split=dataset.split,
        images=len(found),
        classes=tuple(one for one, thing in zip(classes, things, strict=True) if thing or one.objects or one.crowds),
        per_image=(min(counts), int(np.median(counts)), max(counts)),
        without=sum(count == 0 for count in counts) if found else 0,
        skipped=tuple(skipped),
    )


def _sizes(dataset: SegmentationData, index: int) -> _Sizes | DataError | None:
    try:
        target = dataset.truth(index)
    except DataError as error:
        return error
    if not isinstance(target, InstancesTarget):
        return None
    areas = [one.area if isinstance(one, Rle) else int(np.count_nonzero(one)) for one in target.masks]
    crowd = np.asarray(target.crowd).astype(bool)
    return _Sizes(kinds=np.asarray(target.classes, np.int64), areas=np.array(areas, np.int64), crowd=crowd)


def _of_class(name: str, kind: int, found: Sequence[_Sizes]) -> ClassObjects:
    own = [one.areas[(one.kinds == kind) & ~one.crowd] for one in found]
    areas = np.concatenate([np.zeros(0, np.int64), *own])
    return ClassObjects(
        name=name,
        objects=len(areas),
        images=sum(part.size > 0 for part in own),
        areas=(int(areas.min()), int(np.median(areas)), int(areas.max())) if areas.size else None,
        small=int((areas < SMALL).sum()),
        medium=int(((areas >= SMALL) & (areas < LARGE)).sum()),
        large=int((areas >= LARGE).sum()),
        crowds=sum(int(((one.kinds == kind) & one.crowd).sum()) for one in found),
    )
