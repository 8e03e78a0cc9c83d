"""What is found in one image, as plain data in the image's own size. No torch is needed to hold it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Never, Self, overload

import numpy as np

from segatlas.errors import TaskError
from segatlas.structures.outlines import Polygon, polygons_of
from segatlas.structures.rle import Rle

PIXELS_AT_ONCE = 1 << 20
"""Pixels of a class map that are counted at once: counting needs eight bytes for each."""


def _equal(one: Any, other: Any) -> bool:
    """Compare plain data that may hold arrays, whose own `==` gives an array."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        both = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
        return both and one.dtype == other.dtype and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


class _WithArrays:
    """A dataclass with arrays among its fields: equal when all fields are."""

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_equal(value, vars(other)[name]) for name, value in vars(self).items())

    __hash__ = None  # type: ignore[assignment]


class _Mask:
    """The field `mask` of an `Instance`: taken as a bitmap or as runs, kept as runs, given as a bitmap."""

    @overload
    def __get__(self, instance: None, owner: type) -> Never: ...

    @overload
    def __get__(self, instance: object, owner: type) -> np.ndarray: ...

    def __get__(self, instance: Any, owner: type) -> np.ndarray:
        """Return (H, W) bool, made anew each time."""
        if instance is None:
            raise AttributeError("mask")  # a dataclass asks the class for a default: there is none
        return instance.rle.bitmap()

    def __set__(self, instance: Any, value: np.ndarray | Rle) -> None:
        vars(instance)["_rle"] = value if isinstance(value, Rle) else Rle.of(np.asarray(value))


class _Box:
    """The field `box` of an `Instance`: that of the mask where the network gave none of its own."""

    @overload
    def __get__(self, instance: None, owner: type) -> None: ...

    @overload
    def __get__(self, instance: object, owner: type) -> tuple[float, float, float, float]: ...

    def __get__(self, instance: Any, owner: type) -> tuple[float, float, float, float] | None:
        """Return (top, left, bottom, right)."""
        if instance is None:
            return None  # the default
        own = vars(instance)["_box"]
        return instance.rle.box if own is None else own

    def __set__(self, instance: Any, value: tuple[float, float, float, float] | None) -> None:
        vars(instance)["_box"] = None if value is None else tuple(value)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Instance(_WithArrays):
    """One object. class_index: 0..K-1. score: 0..1.

    mask: given as (H, W) bool or as `Rle`; it is kept as runs, and each use of `mask` makes the bitmap anew. box: (top,
    left, bottom, right) in pixels, the last two exclusive; the network's own where it gives one, as floats, else that
    of the mask, whole numbers, all 0 for an empty one.
    """

    mask: _Mask = _Mask()
    class_index: int
    score: float
    box: _Box = _Box()

    @property
    def rle(self) -> Rle:
        """The mask as runs."""
        return vars(self)["_rle"]

    def bitmap(self) -> np.ndarray:
        """Return the mask, (H, W) bool, made anew."""
        return self.rle.bitmap()

    @property
    def area(self) -> int:
        """Number of pixels of the mask."""
        return self.rle.area

    @property
    def label(self) -> int:
        """The class, as `class_index`."""
        return self.class_index

    def polygons(self) -> tuple[Polygon, ...]:
        """Return the outline: a polygon with its holes for each part of the mask, see `structures.outlines`."""
        return polygons_of(self.rle)

    def __repr__(self) -> str:
        return f"Instance(class_index={self.class_index}, score={self.score:.4g}, box={self.box}, area={self.area})"


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One segment of a panoptic result. id: its value in the map, from 1. is_thing: an object, not stuff.

    score: 0..1, None where the network gives none, as of stuff. area: pixels. box: (top, left, bottom, right) in
    pixels, the last two exclusive.
    """

    id: int
    class_index: int
    is_thing: bool
    score: float | None
    area: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Panoptic(_WithArrays):
    """A segment for each pixel. ids: (H, W) int32, 0 = none. segments: those that occur, by rising id."""

    ids: np.ndarray
    segments: tuple[Segment, ...]

    def mask_of(self, segment: Segment) -> Rle:
        """Return the mask of one of the segments as runs; `.bitmap()` gives (H, W) bool."""
        top, left, bottom, right = segment.box
        part = self.ids[top:bottom, left:right] == segment.id
        return Rle.placed(part, (self.ids.shape[0], self.ids.shape[1]), top, left)

    def __repr__(self) -> str:
        height, width = self.ids.shape
        return f"Panoptic({len(self.segments)} segments, {height}x{width})"


@dataclass(frozen=True, kw_only=True, eq=False)
class Result(_WithArrays):
    """What is found in one image; None = the model does not give it, or it was not asked for.

    class_map: (H, W), uint8 for up to 255 classes, else int32. confidence: (H, W) float32, probability of the class in
    `class_map`. objects: by falling score. segments: a segment for each pixel.

    Two results are equal when all that they hold is.
    """

    class_map: np.ndarray | None = None
    confidence: np.ndarray | None = None
    objects: tuple[Instance, ...] | None = None
    segments: Panoptic | None = None

    @property
    def semantic(self) -> np.ndarray:
        """(H, W) class index per pixel, uint8 for up to 255 classes, else int32. TaskError where there is none."""
        if self.class_map is None:
            raise self._missing("semantic map")
        return self.class_map

    @property
    def instances(self) -> tuple[Instance, ...]:
        """Objects with mask, class and score, by falling score. TaskError where the model gives none."""
        if self.objects is None:
            raise self._missing("instances")
        return self.objects

    @property
    def panoptic(self) -> Panoptic:
        """Segment of each pixel, and the segments. TaskError where the model gives none."""
        if self.segments is None:
            raise self._missing("panoptic result")
        return self.segments

    @property
    def given(self) -> tuple[str, ...]:
        """Those of "semantic", "instances" and "panoptic" that this result has."""
        parts = {"semantic": self.class_map, "instances": self.objects, "panoptic": self.segments}
        return tuple(name for name, part in parts.items() if part is not None)

    def _missing(self, what: str) -> TaskError:
        return TaskError(f"this model gives no {what}; it can give: {', '.join(self.given) or 'nothing'}")


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageResult(Result):
    """A result with what it is about: the image, and what its classes are called.

    size: (H, W). classes, palette: names and RGB colours by class index. source: the image's file or name, "" where it
    has none. image: (H, W, 3) uint8 RGB to look at, None where it is not kept. model: what the model was loaded from,
    as it was called there, "" of one that was not loaded.
    """

    size: tuple[int, int]
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    source: str = ""
    image: np.ndarray | None = field(default=None, repr=False)
    model: str = ""

    def without_image(self) -> Self:
        """Return the same without the image, for many results that are kept: it takes three bytes a pixel."""
        return replace(self, image=None)

    def areas(self) -> dict[str, int]:
        """Return the pixel count of each class that occurs in the image.

        Of a result that has objects alone, a pixel counts once for each class that it has an object of.
        """
        found: dict[str, int] = {}
        for index, pixels in self.class_pixels().items():
            found[self.classes[index]] = found.get(self.classes[index], 0) + pixels
        return found

    def class_pixels(self) -> dict[int, int]:
        """Return the same by class index, rising."""
        if self.class_map is None and self.objects is not None:
            of_class: dict[int, np.ndarray] = {}
            for one in self.instances:
                mask = one.bitmap()
                of_class[one.class_index] = mask | of_class.get(one.class_index, mask)
            return {index: int(np.count_nonzero(of_class[index])) for index in sorted(of_class)}
        flat = self.semantic.reshape(-1)
        counts = np.zeros(max(len(self.classes), 1 + int(flat.max(initial=0))), np.int64)
        for start in range(0, flat.size, PIXELS_AT_ONCE):
            counts += np.bincount(flat[start : start + PIXELS_AT_ONCE], minlength=len(counts))
        return {index: int(counts[index]) for index in np.flatnonzero(counts[: len(self.classes)]).tolist()}

    def polygons(self) -> dict[str, tuple[Polygon, ...]]:
        """Return the outlines of each class that occurs: a polygon with its holes for each part, exact.

        Things that are told apart have polygons of their own also where they touch: those of segments or objects.
        `Instance.polygons` are those of one object. Corners are (x, y) in pixels, see `structures.outlines`.
        """
        found: dict[str, tuple[Polygon, ...]] = {}
        for index, mask in self._masks():
            name = self.classes[index]
            found[name] = (*found.get(name, ()), *polygons_of(mask))
        return found

    def _masks(self) -> Iterator[tuple[int, Rle]]:
        """Yield class index and mask of each segment, of each object, or else of each class."""
        if self.segments is not None:
            yield from ((one.class_index, self.segments.mask_of(one)) for one in self.segments.segments)
        elif self.class_map is None and self.objects is not None:
            yield from ((one.class_index, one.rle) for one in self.objects)
        else:
            yield from ((index, Rle.of(self.semantic == index)) for index in self.class_pixels())
