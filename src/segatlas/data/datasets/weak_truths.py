"""How weak labels become truths: sparse masks, masks of some classes, boxes, classes of whole images. One rule a kind.

Letters: K classes, H, W image. A rule gives a `SemanticTarget`; of boxes there are objects, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segatlas.data.datasets.decoder import Decoder
from segatlas.data.datasets.listing import Item, TruthLook, TruthRule
from segatlas.data.datasets.truths import INSTANCES, no_objects
from segatlas.data.formats.coco import Size
from segatlas.data.formats.masks import IGNORE, LabelRule
from segatlas.data.formats.reading import read_shape
from segatlas.errors import DataError
from segatlas.structures import InstancesTarget, SemanticTarget, Target

SEMANTIC = "SemanticTarget"
SMALLEST_REGION = 30
"""Pixels of a region from which on it is expected to have a point, a scribble or a box."""

MOST_REGIONS_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box of an image. kind: its class. corners: x0, y0, x1, y1 as the file says. place: for messages.

    crowd: several objects that were not told apart. drawn_on: (H, W) of the image that the file is of, None = not said.
    """

    kind: int
    corners: tuple[float, float, float, float]
    place: str
    crowd: bool = False
    drawn_on: Size | None = None

    def pixels(self, size: Size) -> tuple[int, int, int, int]:
        """Return the (x0, y0, x1, y1) whole pixels inside an image (H, W).

        Raises:
            DataError: there are none, or the box was drawn on an image of another size.
        """
        if self.drawn_on is not None and self.drawn_on != size:
            text = f"was drawn on an image of {_size_text(self.drawn_on)}, and this one has {_size_text(size)}"
            raise DataError(f"{self.place}: the box {_text(self.corners)} {text}")
        x0, y0, x1, y1 = self.corners
        left, top = max(int(np.floor(x0)), 0), max(int(np.floor(y0)), 0)
        right, bottom = min(int(np.ceil(x1)), size[1]), min(int(np.ceil(y1)), size[0])
        if x1 <= x0 or y1 <= y0:
            raise DataError(f"{self.place}: the box {_text(self.corners)} has no area")
        if right <= left or bottom <= top:
            raise DataError(f"{self.place}: the box {_text(self.corners)} lies outside its image of {_size_text(size)}")
        return left, top, right, bottom

    def leaves_by(self, size: Size) -> float:
        """Return by how many pixels the box leaves an image (H, W); 0 where it does not."""
        x0, y0, x1, y1 = self.corners
        return max(-x0, -y0, x1 - size[1], y1 - size[0], 0.0)


@dataclass(frozen=True, kw_only=True)
class SparseLabels:
    """Masks in which few pixels have a class and all others are 255: scribbles or points.

    words: what one label is called. grow: pixels by which each is widened to all sides when it is read; where two meet,
    the class of the lower number counts. full: by image, the file of its whole mask, where there is one: what the
    labels leave out is then told by `look`.
    """

    rule: LabelRule
    words: str
    grow: int = 0
    full: Mapping[Path, Path] = field(default_factory=dict)
    name: str = SEMANTIC

    def read(self, item: Item, decoder: Decoder) -> SemanticTarget:
        """Return the labels of an item."""
        labels = _decoded(item.truths[self.name], self.rule, decoder)
        return SemanticTarget(labels if self.grow == 0 else _grown(labels, self.grow))

    def size(self, item: Item) -> Size:
        """Return the size that the header says."""
        return _header_size(item.truths[self.name])

    def look(self, item: Item) -> TruthLook:
        """Return what the file shows, and beside a whole mask which regions have no label, or one of another class."""
        path = item.truths[self.name]
        try:
            labels = _decoded(path, self.rule, Decoder())
        except DataError as error:
            return TruthLook(size=self.size(item), misfit=_without(error, path))
        problems = [] if (labels != IGNORE).any() else [("nothing_labelled", f"no pixel has a {self.words}")]
        whole = self.full.get(item.image)
        if whole is not None and not problems:
            problems += self._against(labels, _decoded(whole, self.rule, Decoder()))
        return TruthLook(size=_size(labels), objects=_counts(labels), problems=tuple(problems))

    def _against(self, labels: np.ndarray, whole: np.ndarray) -> Iterator[tuple[str, str]]:
        if whole.shape != labels.shape:
            return
        both = (labels != IGNORE) & (whole != IGNORE)
        wrong = int((both & (labels != whole)).sum())
        if wrong:
            yield "contradiction", f"{wrong} labelled pixels have another class in the whole mask"
        yield from regions_without(whole, labels == whole, f"no {self.words}")


@dataclass(frozen=True, kw_only=True)
class PartialLabels:
    """Masks in which only some classes were looked for. annotated: by image, (K,) bool; all where it is not named."""

    rule: LabelRule
    annotated: Mapping[Path, tuple[bool, ...]]
    name: str = SEMANTIC

    def read(self, item: Item, decoder: Decoder) -> SemanticTarget:
        """Return the labels of an item with what was annotated."""
        labels = _decoded(item.truths[self.name], self.rule, decoder)
        flags = self.annotated.get(item.image)
        return SemanticTarget(labels, None if flags is None else np.array(flags, bool))

    def size(self, item: Item) -> Size:
        """Return the size that the header says."""
        return _header_size(item.truths[self.name])

    def look(self, item: Item) -> TruthLook:
        """Return which labels the file shows: a class that stands for those not annotated is among them."""
        path = item.truths[self.name]
        try:
            target = self.read(item, Decoder())
        except DataError as error:
            return TruthLook(size=self.size(item), misfit=_without(error, path))
        labels = np.asarray(target.labels)
        if (target.certain == IGNORE).all():  # one that stands for all that were not annotated says of none of them
            return TruthLook(
                size=_size(labels), problems=(("nothing_labelled", "no pixel has a class of those annotated"),)
            )
        return TruthLook(size=_size(labels), objects=_counts(labels))


@dataclass(frozen=True, kw_only=True)
class BoxLabels:
    """Boxes as labels: inside a box its class, the smaller box over the larger; outside all of them the background.

    entries: by image. background: its class; IGNORE where nothing is known there. full: as in `SparseLabels`.
    """

    entries: Mapping[Path, Sequence[Box]]
    background: int
    rule: LabelRule
    full: Mapping[Path, Path] = field(default_factory=dict)
    name: str = SEMANTIC

    def read(self, item: Item, decoder: Decoder) -> SemanticTarget:
        """Return the labels of an item. DataError where a box has no pixel of the image."""
        boxes, size = self.entries.get(item.image, ()), _header_size(item.image)
        return SemanticTarget(painted_boxes(boxes, size, self.background, item.truths[self.name]))

    def size(self, item: Item) -> None:
        """Return None: no header tells a size."""
        return

    def look(self, item: Item) -> TruthLook:
        """Return what the boxes show, each that has no pixel or leaves the image, and objects without a box."""
        size, boxes = _header_size(item.image), self.entries.get(item.image, ())
        problems = _of_boxes(boxes, size)
        if not boxes:
            then = "nothing of it is known" if self.background == IGNORE else "all of it is taken for background"
            problems.append(("nothing_labelled", f"no box: {then}"))
        whole = self.full.get(item.image)
        if whole is not None and not problems:
            labels = _decoded(whole, self.rule, Decoder())
            if labels.shape == size:
                inside = np.zeros(size, bool)
                for box in boxes:
                    x0, y0, x1, y1 = box.pixels(size)
                    part = (slice(y0, y1), slice(x0, x1))
                    inside[part] |= labels[part] == box.kind
                problems += regions_without(np.where(labels == self.background, IGNORE, labels), inside, "no box")
        counts = Counter(box.kind for box in boxes)
        if self.background != IGNORE:
            counts[self.background] += 1
        return TruthLook(size=size, objects=dict(counts), problems=tuple(problems))


@dataclass(frozen=True, kw_only=True)
class BoxObjects:
    """Boxes as objects: the mask of each is its box, filled. entries: by image."""

    entries: Mapping[Path, Sequence[Box]]
    name: str = INSTANCES

    def read(self, item: Item, decoder: Decoder) -> InstancesTarget:
        """Return the objects of an item, in the order of its boxes. DataError where a box has no pixel of the image."""
        boxes, size = self.entries.get(item.image, ()), _header_size(item.image)
        if not boxes:
            return no_objects(size)
        masks = np.zeros((len(boxes), *size), bool)
        for mask, box in zip(masks, boxes, strict=True):
            x0, y0, x1, y1 = _pixels(box, size, item.truths[self.name])
            mask[y0:y1, x0:x1] = True
        kinds, crowd = np.array([box.kind for box in boxes], np.int64), np.array([box.crowd for box in boxes], bool)
        return InstancesTarget(masks, kinds, crowd)

    def size(self, item: Item) -> None:
        """Return None: no header tells a size."""
        return

    def look(self, item: Item) -> TruthLook:
        """Return how many boxes there are of each class; their faults are told of the labels, which are the same."""
        boxes = self.entries.get(item.image, ())
        return TruthLook(size=_header_size(item.image), objects=dict(Counter(box.kind for box in boxes)))


@dataclass(frozen=True, kw_only=True)
class ClassesOfImages:
    """Classes of whole images: which the image shows, and not where. entries: by image, (K,) bool."""

    entries: Mapping[Path, tuple[bool, ...]]
    name: str = SEMANTIC

    def read(self, item: Item, decoder: Decoder) -> SemanticTarget:
        """Return labels of 255 with the classes that are present."""
        labels = np.full(_header_size(item.image), IGNORE, np.uint8)
        return SemanticTarget(labels, None, np.array(self.entries[item.image], bool))

    def size(self, item: Item) -> None:
        """Return None: no header tells a size."""
        return

    def look(self, item: Item) -> TruthLook:
        """Return the classes of an image."""
        flags = self.entries[item.image]
        objects = {kind: 1 for kind, there in enumerate(flags) if there}
        problems = () if objects else (("nothing_labelled", "no class: it is taken for an image that shows none"),)
        return TruthLook(size=_header_size(item.image), objects=objects, problems=problems)


@dataclass(frozen=True, kw_only=True)
class ClassesOfMasks:
    """Masks of which only the classes that occur are told, for a trial of image labels on a set that has masks."""

    rule: LabelRule
    name: str = SEMANTIC

    def read(self, item: Item, decoder: Decoder) -> SemanticTarget:
        """Return labels of 255 with the classes that the mask shows."""
        labels = _decoded(item.truths[self.name], self.rule, decoder)
        present = np.bincount(labels.ravel(), minlength=256)[: self.rule.num_classes] > 0
        return SemanticTarget(np.full(labels.shape, IGNORE, np.uint8), None, present)

    def size(self, item: Item) -> Size:
        """Return the size that the header says."""
        return _header_size(item.truths[self.name])

    def look(self, item: Item) -> TruthLook:
        """Return the classes that the mask shows."""
        path = item.truths[self.name]
        try:
            labels = _decoded(path, self.rule, Decoder())
        except DataError as error:
            return TruthLook(size=self.size(item), misfit=_without(error, path))
        return TruthLook(size=_size(labels), objects=_counts(labels))


@dataclass(frozen=True, kw_only=True, eq=False)
class RuleOfImage:
    """A rule for each image, where those of a set differ. rules: by image."""

    rules: Mapping[Path, TruthRule]
    name: str = SEMANTIC

    def read(self, item: Item, decoder: Decoder) -> Target:
        """Return the truth of an item."""
        return self.rules[item.image].read(item, decoder)

    def size(self, item: Item) -> Size | None:
        """Return the size that the item's own rule tells."""
        return self.rules[item.image].size(item)

    def look(self, item: Item) -> TruthLook:
        """Return what the item's own rule shows."""
        return self.rules[item.image].look(item)


def painted_boxes(boxes: Sequence[Box], size: Size, background: int, path: Path) -> np.ndarray:
    """Return labels (H, W) uint8: `background`, and each box filled with its class, the smaller over the larger."""
    labels = np.full(size, background, np.uint8)
    corners = [(_pixels(box, size, path), box.kind) for box in boxes]
    for (x0, y0, x1, y1), kind in sorted(corners, key=lambda one: -(one[0][2] - one[0][0]) * (one[0][3] - one[0][1])):
        labels[y0:y1, x0:x1] = kind
    return labels


def regions_without(whole: np.ndarray, found: np.ndarray, words: str) -> Iterator[tuple[str, str]]:
    """Yield one problem that names the regions of a whole mask (H, W) in which `found` (H, W) bool is nowhere true.

    A region is what hangs together of one class, of SMALLEST_REGION pixels or more.
    """
    import cv2

    lost: list[tuple[int, int, int, int]] = []
    for kind in np.unique(whole[whole != IGNORE]).tolist():
        inside = (whole == kind).astype(np.uint8)
        count, regions, facts, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
        hit = np.bincount(regions.ravel(), weights=found.ravel(), minlength=count)
        for region in range(1, count):
            if not hit[region] and facts[region, cv2.CC_STAT_AREA] >= SMALLEST_REGION:
                x, y, area = (int(facts[region, one]) for one in (cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP, cv2.CC_STAT_AREA))
                lost.append((area, kind, x, y))
    if lost:
        lost.sort(reverse=True)
        named = ", ".join(f"class {kind} at x {x}, y {y} ({area} pixels)" for area, kind, x, y in lost[:3])
        more = f" and {len(lost) - MOST_REGIONS_NAMED} more" if len(lost) > MOST_REGIONS_NAMED else ""
        yield "region_without_label", f"{words}: {named}{more}"


def _of_boxes(boxes: Sequence[Box], size: Size) -> list[tuple[str, str]]:
    problems = []
    for box in boxes:
        try:
            box.pixels(size)
        except DataError as error:
            problems.append(("bad_box", str(error)))
            continue
        if (far := box.leaves_by(size)) > 1:
            problems.append(("box_cut", f"{box.place}: leaves the image by {far:.1f} pixels"))
    return problems


def _pixels(box: Box, size: Size, path: Path) -> tuple[int, int, int, int]:
    try:
        return box.pixels(size)
    except DataError as error:
        raise DataError(str(error), path) from error


def _decoded(path: Path, rule: LabelRule, decoder: Decoder) -> np.ndarray:
    return decoder.file(path, f"label {rule.text}", lambda data: rule.decode(data, path))


def _grown(labels: np.ndarray, pixels: int) -> np.ndarray:
    """Return sparse labels (H, W) uint8 widened by so many pixels to all sides: the lowest value around counts."""
    import cv2

    return cv2.erode(labels, np.ones((2 * pixels + 1,) * 2, np.uint8), borderType=cv2.BORDER_REPLICATE)


def _counts(labels: np.ndarray) -> dict[int, int]:
    """Return how many pixels each class has; 255 is none."""
    counts = np.bincount(labels.ravel(), minlength=256)[:IGNORE]
    return {int(kind): int(counts[kind]) for kind in np.flatnonzero(counts)}


def _header_size(path: Path) -> Size:
    shape = read_shape(path)
    return shape.height, shape.width


def _size(array: np.ndarray) -> Size:
    return array.shape[0], array.shape[1]


def _size_text(size: Size) -> str:
    return f"{size[1]} x {size[0]} pixels"


def _text(corners: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in corners)


def _without(error: DataError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")
