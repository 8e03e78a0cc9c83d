"""Segmentation and boundary maps of an image, of a model's result or of given labels, in any palette."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from segatlas.data.formats.guards import read_bytes
from segatlas.data.formats.instances import InstanceRule, Meaning, table_of
from segatlas.data.formats.masks import read_mask
from segatlas.data.formats.reading import read_stored
from segatlas.drawing import (
    Cell,
    boundary_image,
    color_mask,
    gallery,
    object_boundaries,
    object_maps,
    truth_maps,
    with_legend,
)
from segatlas.drawing.legend import overlay_colors
from segatlas.drawing.maps import blend
from segatlas.errors import DataError, UsageError
from segatlas.explain.palettes import Color, Palette, find_names, find_palette
from segatlas.inference import Segmentation
from segatlas.labels import IGNORE, MAX_CLASSES

Kind = Literal["image", "map", "overlay", "boundary", "colored"]
KINDS: tuple[Kind, ...] = ("image", "map", "overlay", "boundary", "colored")
"""The image; each pixel in its class's colour; the image tinted with it; lines along changes of class or object; the
boundary of each object, or region of a class, in its class's colour."""

SHEET_TEXT = 16
"""Size of the text of a sheet's legend, in pixels."""

TITLES = {
    "image": "image",
    "map": "segmentation",
    "overlay": "overlay",
    "boundary": "boundaries",
    "colored": "boundaries by class",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """What is drawn of an image: its objects or segments, or its classes where it has no objects.

    image: (H, W, 3) uint8 RGB. ids: (H, W) number of each pixel's object, below 0 = none; of a class map the classes.
    kinds: (H, W) class of each pixel, below 0 or K and more = none. classes, palette: names and colours of K classes.
    objects: ids are objects or segments.
    """

    image: np.ndarray = field(repr=False)
    ids: np.ndarray = field(repr=False)
    kinds: np.ndarray = field(repr=False)
    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    objects: bool

    @classmethod
    def of(cls, result: Segmentation, palette: Palette | None = None) -> Labels:
        """Return what is drawn of a model's result.

        Args:
            result: with its image.
            palette: other colours than the model's, see `find_palette`.
        """
        if result.image is None:
            raise DataError("this result does not hold its image", result.source or None)
        ids, kinds = object_maps(result, result.size)
        return cls(
            image=result.image,
            ids=ids,
            kinds=kinds,
            classes=result.classes,
            palette=result.palette if palette is None else find_palette(palette, len(result.classes)),
            objects=result.segments is not None or result.objects is not None,
        )

    @classmethod
    def read(
        cls,
        image: np.ndarray,
        labels: str | Path | None = None,
        objects: str | Path | None = None,
        classes: str | Path | None = None,
        palette: Palette = "default",
    ) -> Labels:
        """Return what is drawn of label files.

        Args:
            image: (H, W, 3) uint8 RGB.
            labels: a mask of class indices, 255 = ignore.
            objects: or a map of objects: class * 1000 + n a pixel, or numbers that a table beside it tells classes of.
            classes: names, see `find_names`; None = numbers.
            palette: see `find_palette`.

        Raises:
            UsageError, DataError: neither or both of labels and objects; files that cannot be used.
        """
        if (labels is None) == (objects is None):
            raise UsageError("labels: expected a mask of classes or a map of objects, one of the two")
        path = Path(labels if labels is not None else str(objects))
        if labels is not None:
            ids = kinds = read_mask(path).astype(np.int32)
            highest = int(kinds[kinds != IGNORE].max(initial=0))
            if kinds.min() < 0 or highest >= MAX_CLASSES:
                raise DataError(f"holds {int(kinds.max())}; expected classes 0..{MAX_CLASSES - 1}, or {IGNORE}", path)
            kinds = np.where(kinds == IGNORE, -1, kinds)
            ids = kinds
        else:
            names = () if classes is None else find_names(classes, 0)
            meaning: Meaning = "table" if table_of(path).is_file() else "divisor"
            rule = InstanceRule(num_classes=len(names) or MAX_CLASSES, meaning=meaning, first=0, names=names)
            codes = rule.codes(read_stored(read_bytes(path), path, None), path)
            ids, kinds = truth_maps(rule.target(codes, path))
            highest = int(kinds.max(initial=0))
        if ids.shape != image.shape[:2]:
            (height, width), (rows, columns) = image.shape[:2], ids.shape
            raise DataError(f"is {columns} x {rows} pixels, the image {width} x {height}", path)
        known = find_names(classes, highest + 1)
        colors = find_palette(palette, len(known))
        return cls(image=image, ids=ids, kinds=kinds, classes=known, palette=colors, objects=objects is not None)

    def class_map(self) -> np.ndarray:
        """Return (H, W) the class of each pixel, K for none."""
        count = len(self.classes)
        return np.where((self.kinds < 0) | (self.kinds >= count), count, self.kinds)


def drawn_map(labels: Labels, kind: Kind, *, legend: bool = False) -> np.ndarray:
    """Return one map of an image in its own size, (H, W, 3) uint8; with a legend it is larger.

    Args:
        labels: what is drawn.
        kind: which map, see `KINDS`.
        legend: add the strip with colours, names and fractions of the image's area.
    """
    image, class_map = labels.image, labels.class_map()
    if kind == "image":
        drawn = image
    elif kind == "map":
        drawn = color_mask(class_map, [*labels.palette, (0, 0, 0)])
        if labels.objects:
            drawn = boundary_image(drawn, labels.ids)
    elif kind == "overlay":
        drawn = blend(image, class_map, labels.palette)
        if labels.objects:
            drawn = boundary_image(drawn, labels.ids)
    elif kind == "boundary":
        drawn = boundary_image(image, labels.ids)
    else:
        drawn = object_boundaries(image, labels.ids, labels.kinds, labels.palette)
    if not legend:
        return drawn
    palette = overlay_colors(labels.palette) if kind == "overlay" else labels.palette
    return with_legend(drawn, class_map, palette, labels.classes, outside=_outside(labels))


def map_figure(labels: Sequence[Labels], kinds: Sequence[Kind] = KINDS, names: Sequence[str] = ()) -> np.ndarray:
    """Return one sheet, (H', W', 3) uint8: a row for each image, a column for each kind, and one legend for all.

    Args:
        labels: of each image; all of the same classes.
        kinds: the columns, see `KINDS`.
        names: of the images, drawn over the first column; () = none.
    """
    cells = []
    for row, one in enumerate(labels):
        for column, kind in enumerate(kinds):
            title = names[row] if column == 0 and row < len(names) and len(labels) > 1 else TITLES[kind]
            cells.append(Cell(image=drawn_map(one, kind), title=title))
    sheet = gallery(cells, columns=len(kinds))
    first = labels[0]
    seen = np.concatenate([one.class_map().ravel() for one in labels])
    return with_legend(sheet, seen, first.palette, first.classes, outside=_outside(first), size=SHEET_TEXT)


def _outside(labels: Labels) -> str:
    return "none" if labels.objects else "ignore"
