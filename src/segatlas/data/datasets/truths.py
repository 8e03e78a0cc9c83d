"""How files become truths of objects and of segments: one rule a kind of file.

A rule is asked for the truth of an item (`read`), for all that its file shows (`look`, for `data check`), and for the
size that headers tell (`size`). Letters: M objects, S segments, K classes, H, W image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from segatlas.data.datasets.decoder import Decoder
from segatlas.data.datasets.listing import Item, TruthLook, TruthRule
from segatlas.data.formats.coco import (
    CocoMap,
    CocoObject,
    CocoSegment,
    Size,
    misfits,
    numbers_of,
    outside,
)
from segatlas.data.formats.guards import read_bytes
from segatlas.data.formats.instances import InstanceRule, class_index, read_table
from segatlas.data.formats.masks import IGNORE, LabelRule
from segatlas.data.formats.panoptic import IGNORED, segment_numbers
from segatlas.data.formats.reading import read_shape, read_stored
from segatlas.errors import DataError
from segatlas.structures import InstancesTarget, SegmentsTarget, Target

INSTANCES, SEGMENTS = "InstancesTarget", "SegmentsTarget"
NO_SEGMENT = -1


@dataclass(frozen=True, kw_only=True)
class MapOfObjects:
    """Maps with a number for each object."""

    rule: InstanceRule
    name: str = INSTANCES

    def read(self, item: Item, decoder: Decoder) -> InstancesTarget:
        """Return the objects of an item."""
        path = item.truths[self.name]
        return self.rule.target(decoder.file(path, self.name, lambda data: self._codes(data, path)), path)

    def size(self, item: Item) -> Size:
        """Return the size that the header says."""
        return _header_size(item.truths[self.name])

    def look(self, item: Item) -> TruthLook:
        """Return what the file shows."""
        path = item.truths[self.name]
        stored = read_stored(read_bytes(path), path)
        problems: list[tuple[str, str]] = []
        try:
            codes = self.rule.codes(stored, path)
            target = self.rule.target(codes, path)
        except DataError as error:
            return TruthLook(size=_size(stored.samples), misfit=_text(error, path))
        if self.rule.meaning == "table":
            listed = read_table(path, self.rule.names)
            lost = sorted(set(listed) - set(np.unique(codes).tolist()))
            problems += [("empty_object", f"object {number} of its table has no pixel") for number in lost]
        return _look(target, problems)

    def _codes(self, data: bytes, path: Path) -> np.ndarray:
        return self.rule.codes(read_stored(data, path), path)


@dataclass(frozen=True, kw_only=True)
class FilesOfObjects:
    """A folder with a file for each object, whose name says the class; objects may overlap.

    names: of the classes. A file is called CLASS, CLASS_n or n_CLASS (`-`, `.` or a blank may stand for `_`); with
    `_crowd` at the end it shows several objects. Its pixels have two values, or one.
    """

    names: Sequence[str]
    name: str = INSTANCES

    def read(self, item: Item, decoder: Decoder) -> InstancesTarget:
        """Return the objects of an item, by the names of their files; those without a pixel are left out."""
        return _with_pixels(self._target(item, decoder)[1])

    def size(self, item: Item) -> Size | None:
        """Return the size that the first file's header says; None for an empty folder."""
        files = object_files(item.truths[self.name])
        return _header_size(files[0]) if files else None

    def look(self, item: Item) -> TruthLook:
        """Return what the files show."""
        folder = item.truths[self.name]
        try:
            files, target = self._target(item, Decoder())
        except DataError as error:
            return TruthLook(size=self.size(item) or (0, 0), misfit=_text(error, folder))
        named = [path.name for path in files]
        return _look(target, [*_of_masks(np.asarray(target.masks), np.asarray(target.classes), named)])

    def _target(self, item: Item, decoder: Decoder) -> tuple[list[Path], InstancesTarget]:
        folder = item.truths[self.name]
        files = object_files(folder)
        kinds = [read_object_name(path, self.names) for path in files]
        masks = [decoder.file(path, "object", _decode_object(path)) for path in files]
        if not masks:
            return [], no_objects(_header_size(item.image))
        odd = next((index for index, mask in enumerate(masks) if mask.shape != masks[0].shape), None)
        if odd is not None:
            found, first = (f"{mask.shape[1]} x {mask.shape[0]}" for mask in (masks[odd], masks[0]))
            raise DataError(f"is {found} pixels, {files[0].name} beside it {first}", files[odd])
        classes = np.array([kind for kind, _ in kinds], np.int64)
        return files, InstancesTarget(np.stack(masks).astype(bool), classes, np.array([crowd for _, crowd in kinds]))


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageObjects:
    """The objects that a file lists of one image. size: (H, W) as it says. classes: category -> class."""

    objects: Sequence[CocoObject]
    size: Size
    classes: Mapping[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageMap:
    """What a file says of the panoptic map of one image. classes: category -> class."""

    map: CocoMap
    classes: Mapping[int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class ListedObjects:
    """Objects of annotation files of COCO's form. entries: by the file of the image."""

    entries: Mapping[Path, ImageObjects]
    name: str = INSTANCES

    def read(self, item: Item, decoder: Decoder) -> InstancesTarget:
        """Return the objects of an item, in the file's order; those without a pixel are left out."""
        entry = self.entries[item.image]
        objects, size = entry.objects, entry.size
        if not objects:
            return no_objects(size)
        path = item.truths[self.name]

        def packed() -> np.ndarray:
            return pack(np.stack([_drawn(one, size, path) for one in objects]))

        content = b"\0".join(one.identity for one in objects) + str(size).encode()
        masks = unpack(decoder.entry(content, "objects", packed), size)
        kinds = _class_numbers(objects, entry.classes, "annotation", path)
        return _with_pixels(InstancesTarget(masks, kinds, np.array([one.crowd for one in objects], bool)))

    def size(self, item: Item) -> Size:
        """Return the size that the file says."""
        return self.entries[item.image].size

    def look(self, item: Item) -> TruthLook:
        """Return what the file says of an image."""
        path, entry = item.truths[self.name], self.entries[item.image]
        size = entry.size
        problems, masks, kept = [], [], []
        for one in entry.objects:
            try:
                mask = _drawn(one, size, path)
                _class_numbers([one], entry.classes, "annotation", path)
            except DataError as error:
                problems.append(("bad_annotation", _text(error, path)))
                continue
            masks.append(mask)
            kept.append(one)
            what = f"annotation {one.id}"
            if far := outside(one, size):
                problems.append(("polygon_outside", f"{what} leaves the image by {far:.1f} pixels"))
            elif mask.any():
                exact = not isinstance(one.shape, tuple)
                problems += [
                    ("area_mismatch", f"{what}: {text}") for text in misfits(one.area, one.box, mask, exact=exact)
                ]
        if not kept:
            return TruthLook(size=size, problems=tuple(problems))
        classes = _class_numbers(kept, entry.classes, "annotation", path)
        problems += _of_masks(np.stack(masks), classes, [f"annotation {one.id}" for one in kept])
        crowd = np.array([one.crowd for one in kept], bool)
        return _look(InstancesTarget(np.stack(masks), classes, crowd), problems)


@dataclass(frozen=True, kw_only=True, eq=False)
class PanopticMaps:
    """Panoptic PNG files with their tables.

    entries: by the file of the image. things: by class.
    """

    entries: Mapping[Path, ImageMap]
    things: Sequence[bool]
    name: str = SEGMENTS

    def read(self, item: Item, decoder: Decoder) -> SegmentsTarget:
        """Return the segments of an item, in the table's order."""
        path = item.truths[self.name]
        numbers = decoder.file(path, "segments", lambda data: segment_numbers(read_stored(data, path), path))
        entry = self.entries[item.image]
        segments = entry.map.segments
        for text in _only_in_one(numbers, segments):
            raise DataError(text, path)
        kinds = _class_numbers(segments, entry.classes, "segment", path)
        return segments_target(numbers, segments, kinds, self.things)

    def size(self, item: Item) -> Size:
        """Return the size that the header says."""
        return _header_size(item.truths[self.name])

    def look(self, item: Item) -> TruthLook:
        """Return what map and table show."""
        path = item.truths[self.name]
        numbers = segment_numbers(read_stored(read_bytes(path), path), path)
        entry = self.entries[item.image]
        segments = entry.map.segments
        problems = [("unlisted_segment", text) for text in _only_in_one(numbers, segments)]
        known = [one for one in segments if one.category in entry.classes]
        for one in segments:
            inside = numbers == one.id
            found = numbers_of(inside)
            if found[0]:
                texts = misfits(one.area, one.box, inside, exact=True, found=found)
                problems += [("area_mismatch", f"segment {one.id}: {text}") for text in texts]
        counts = Counter(entry.classes[one.category] for one in known)
        misfit = ""
        if len(known) < len(segments):
            lost = next(one for one in segments if one.category not in entry.classes)
            misfit = f"segment {lost.id} is of category {lost.category}, which is no class"
        return TruthLook(size=_size(numbers), objects=dict(counts), misfit=misfit, problems=tuple(problems))

    def label_rule(self, item: Item) -> PanopticLabels:
        """Return how the map of an item becomes classes."""
        entry = self.entries[item.image]
        segments = tuple((one.id, entry.classes.get(one.category, IGNORE)) for one in entry.map.segments)
        return PanopticLabels(num_classes=len(self.things), segments=segments)


@dataclass(frozen=True, kw_only=True)
class PanopticLabels(LabelRule):
    """How a panoptic map becomes classes. segments: (number, class) each; ignore becomes 255."""

    segments: tuple[tuple[int, int], ...] = ()

    def decode(self, data: bytes, path: str | Path) -> np.ndarray:
        """Return the label (H, W) uint8. DataError where map and table differ."""
        numbers = segment_numbers(read_stored(data, path), path)
        found, places = np.unique(numbers, return_inverse=True)
        table = dict(self.segments) | {IGNORED: IGNORE}
        lost = [number for number in found.tolist() if number not in table]
        if lost:
            raise DataError(_only_in_map(lost), path)
        labels: np.ndarray = np.array([table[number] for number in found.tolist()], np.uint8)[places]
        return labels.reshape(numbers.shape)

    @property
    def text(self) -> str:
        """A text that differs where the rule does."""
        return f"segments {self.segments}"


@dataclass(frozen=True, kw_only=True, eq=False)
class PanopticLabelsByFile(LabelRule):
    """As `PanopticLabels`, for all maps of a dataset. rules: by the file of the map."""

    rules: Mapping[Path, PanopticLabels]

    def decode(self, data: bytes, path: str | Path) -> np.ndarray:
        """Return the label (H, W) uint8. DataError where map and table differ."""
        return self.rules[Path(path)].decode(data, path)


@dataclass(frozen=True, kw_only=True, eq=False)
class EitherRule:
    """Two rules for one type of truth. images: the items that the first one reads."""

    first: TruthRule
    second: TruthRule
    images: frozenset[Path]

    def read(self, item: Item, decoder: Decoder) -> Target:
        """Return the truth of an item."""
        return self._of(item).read(item, decoder)

    def size(self, item: Item) -> Size | None:
        """Return the size that headers tell."""
        return self._of(item).size(item)

    def look(self, item: Item) -> TruthLook:
        """Return what the item's files show."""
        return self._of(item).look(item)

    def _of(self, item: Item) -> TruthRule:
        return self.first if item.image in self.images else self.second


@dataclass(frozen=True, kw_only=True, eq=False)
class ThingsOf:
    """The objects of panoptic maps. classes: class of the map -> class of the objects; stuff is not in it."""

    maps: TruthRule
    classes: Mapping[int, int]
    name: str = INSTANCES

    def read(self, item: Item, decoder: Decoder) -> InstancesTarget:
        """Return the things of an item, in the map's order."""
        target = self.maps.read(item, decoder)
        assert isinstance(target, SegmentsTarget)
        return things_of(target, self.classes)

    def size(self, item: Item) -> Size | None:
        """Return the size that the header says."""
        return self.maps.size(item)

    def look(self, item: Item) -> TruthLook:
        """Return what the map shows; its faults are told with the map."""
        found = self.maps.look(item)
        objects = {self.classes[kind]: count for kind, count in found.objects.items() if kind in self.classes}
        return TruthLook(size=found.size, misfit=found.misfit, objects=objects)


@dataclass(frozen=True, kw_only=True)
class MaskLabels:
    """Gives the mask of an item as classes.

    rule: how its codes become classes. rules: of files with certain endings, where they have others.
    """

    rule: LabelRule
    rules: Mapping[str, LabelRule] = field(default_factory=dict)

    def read(self, item: Item, decoder: Decoder) -> np.ndarray:
        """Return (H, W) uint8, 0..K-1 or 255. DataError where the item has no mask."""
        path = item.target
        if path is None:
            raise DataError("has no mask, without which its stuff is not known", item.image)
        rule = next((rule for ending, rule in self.rules.items() if path.name.endswith(ending)), self.rule)
        return decoder.file(path, f"label {rule.text}", lambda data: rule.decode(data, path))


@dataclass(frozen=True, kw_only=True, eq=False)
class Painted:
    """Segments of masks and objects: each object is a segment, and each stuff class of the mask is one.

    things: by class. A pixel that the mask gives to a thing but
    that lies in no object is ignored; objects that overlap are refused, for a pixel has one segment.
    """

    objects: TruthRule
    labels: MaskLabels
    things: Sequence[bool]
    classes: Mapping[int, int] = field(default_factory=dict)
    """Class of an object -> class of its segment; what is not in it stays."""

    name: str = SEGMENTS

    def read(self, item: Item, decoder: Decoder) -> SegmentsTarget:
        """Return the segments of an item: its objects, then its stuff by class."""
        objects = self.objects.read(self._as_objects(item), decoder)
        assert isinstance(objects, InstancesTarget)
        kinds = np.array([self.classes.get(kind, kind) for kind in np.asarray(objects.classes).tolist()], np.int64)
        return painted(
            self.labels.read(item, decoder), objects._replace(classes=kinds), self.things, item.truths[self.name]
        )

    def size(self, item: Item) -> Size | None:
        """Return the size that the objects' file says."""
        return self.objects.size(self._as_objects(item))

    def _as_objects(self, item: Item) -> Item:
        """Return the item with its file of objects, which a listing of segments alone names as theirs."""
        return replace(item, truths={INSTANCES: item.truths[self.name], **item.truths})

    def look(self, item: Item) -> TruthLook:
        """Return what mask and objects make together; faults of the objects are told with them."""
        path = item.truths[self.name]
        try:
            target = self.read(item, Decoder())
        except DataError as error:
            kind = "overlap" if "overlap" in str(error) else ""
            size = self.size(item) or (0, 0)
            text = _text(error, path)
            return TruthLook(size=size, problems=((kind, text),)) if kind else TruthLook(size=size, misfit=text)
        return TruthLook(size=_size(np.asarray(target.ids)), objects=dict(Counter(np.asarray(target.classes).tolist())))


def painted(
    label: np.ndarray, objects: InstancesTarget, things: Sequence[bool], path: Path | None = None
) -> SegmentsTarget:
    """Return the segments that a mask (H, W) and objects make, see `Painted`. DataError where objects overlap."""
    masks = np.asarray(objects.masks)
    if masks.shape[1:] != label.shape:
        raise DataError(f"objects of {masks.shape[1:]} for a mask of {label.shape}", path)
    ids = np.full(label.shape, NO_SEGMENT, np.int32)
    count = masks.sum(axis=0, dtype=np.int32) if len(masks) else np.zeros(label.shape, np.int32)
    if len(masks) and int(count.max()) > 1:
        first = np.unravel_index(int(count.argmax()), count.shape)
        pair = np.flatnonzero(masks[:, first[0], first[1]])[:2] + 1
        raise DataError(
            f"objects {pair[0]} and {pair[1]} overlap ({int((count > 1).sum())} pixels belong to several objects); a "
            "pixel of a panoptic map has one segment",
            path,
        )
    for row, mask in enumerate(masks):
        ids[mask] = row
    kinds = np.asarray(objects.classes).tolist()
    stuff = [kind for kind, is_thing in enumerate(things) if not is_thing]
    for kind in stuff:
        inside = (label == kind) & (ids == NO_SEGMENT)
        if inside.any():
            ids[inside] = len(kinds)
            kinds.append(kind)
    crowd = np.zeros(len(kinds), bool)
    crowd[: len(masks)] = np.asarray(objects.crowd)
    is_thing = np.array([things[kind] for kind in kinds], bool)
    return SegmentsTarget(ids, np.array(kinds, np.int64), is_thing, crowd)


def things_of(target: SegmentsTarget, classes: Mapping[int, int]) -> InstancesTarget:
    """Return the segments of some classes as objects. classes: class of a segment -> class of its object."""
    kinds = np.asarray(target.classes)
    rows = [row for row, kind in enumerate(kinds.tolist()) if kind in classes]
    masks = np.asarray(target.ids) == np.array(rows, np.int32).reshape(-1, 1, 1)
    new = np.array([classes[int(kinds[row])] for row in rows], np.int64)
    return InstancesTarget(masks, new, np.asarray(target.crowd)[rows])


def segments_target(
    numbers: np.ndarray, segments: Sequence[CocoSegment], kinds: np.ndarray, things: Sequence[bool]
) -> SegmentsTarget:
    """Return the segments of a map of numbers (H, W), each of which is one of `segments` or ignored."""
    known = np.array([IGNORED, *(one.id for one in segments)], np.int64)
    rows = np.array([NO_SEGMENT, *range(len(segments))], np.int32)
    order = np.argsort(known)
    ids = rows[order][np.searchsorted(known[order], numbers)]
    is_thing = np.array([things[kind] for kind in kinds.tolist()], bool)
    return SegmentsTarget(ids, kinds, is_thing, np.array([one.crowd for one in segments], bool))


def no_objects(size: Size) -> InstancesTarget:
    """Return the truth of an image without objects."""
    return InstancesTarget(np.zeros((0, *size), bool), np.zeros(0, np.int64), np.zeros(0, bool))


def pack(masks: np.ndarray) -> np.ndarray:
    """Return masks (M, H, W) bool as the decoded store keeps them.

    (1, H, W) uint8 or uint16, a number for each object, where no two overlap; else (M, 1 + ceil(H W / 8)) bits, the
    first byte of each is 0.
    """
    many, height, width = masks.shape
    if many < 65536 and not (masks.sum(axis=0, dtype=np.int32) > 1).any():
        numbers = np.zeros((1, height, width), np.uint8 if many < 256 else np.uint16)
        for row, mask in enumerate(masks):
            numbers[0][mask] = row + 1
        bits = int(masks.any(axis=(1, 2)).sum())
        if bits == many:
            return numbers
    flat = masks.reshape(many, height * width)
    return np.concatenate([np.zeros((many, 1), np.uint8), np.packbits(flat, axis=1)], axis=1)


def unpack(kept: np.ndarray, size: Size) -> np.ndarray:
    """Return the masks (M, H, W) bool of what `pack` gave."""
    if kept.ndim == 3:
        return kept[0] == np.arange(1, int(kept.max()) + 1, dtype=kept.dtype)[:, None, None]
    flat = np.unpackbits(kept[:, 1:], axis=1, count=size[0] * size[1])
    return flat.astype(bool).reshape(len(kept), *size)


def object_files(folder: Path) -> list[Path]:
    """Return the files of a folder of objects, by name."""
    from segatlas.data.formats.listing import list_images

    return [path for paths in list_images(folder).values() for path in paths]


def read_object_name(path: Path, names: Sequence[str]) -> tuple[int, bool]:
    """Return class and crowd that the name of an object's file says. DataError where it says no class."""
    text, crowd = object_class_text(path)
    try:
        return class_index(text, names, path), crowd
    except DataError as error:
        raise DataError("its name tells no class: " + _text(error, path) + "; expected CLASS_n", path) from error


def object_class_text(path: Path) -> tuple[str, bool]:
    """Return the part of a file's name that is its class, and whether it is a crowd."""
    text, crowd = path.stem, False
    for mark in SEPARATORS:
        if text.lower().endswith(f"{mark}crowd"):
            text, crowd = text[: -len(mark) - 5], True
    head = text.rstrip("0123456789")
    if head and head != text and head[-1] in SEPARATORS:
        return head.rstrip(SEPARATORS), crowd
    tail = text.lstrip("0123456789")
    if tail and tail != text and tail[0] in SEPARATORS:
        return tail.lstrip(SEPARATORS), crowd
    return text, crowd


SEPARATORS = "_-. "


def _decode_object(path: Path) -> Callable[[bytes], np.ndarray]:
    def decode(data: bytes) -> np.ndarray:
        from segatlas.data.formats.masks import decode_mask

        codes = decode_mask(data, name=path)
        values = np.unique(codes)
        if len(values) > 2 or (len(values) == 2 and values[0] != 0):
            shown = ", ".join(map(str, values[:4].tolist()))
            raise DataError(f"holds the values {shown}; expected 0 and one other: a file shows one object", path)
        return (codes != 0).astype(np.uint8)

    return decode


def _drawn(one: CocoObject, size: Size, path: Path) -> np.ndarray:
    try:
        return one.bitmap(size)
    except DataError as error:
        raise DataError(f"annotation {one.id}: {error}", path) from error


def _class_numbers(
    entries: Sequence[CocoObject] | Sequence[CocoSegment], classes: Mapping[int, int], what: str, path: Path
) -> np.ndarray:
    lost = next((one for one in entries if one.category not in classes), None)
    if lost is not None:
        raise DataError(f"{what} {lost.id} is of category {lost.category}, which is no class of the dataset", path)
    return np.array([classes[one.category] for one in entries], np.int64)


def _only_in_one(numbers: np.ndarray, segments: Sequence[CocoSegment]) -> Iterator[str]:
    found = set(np.unique(numbers).tolist()) - {IGNORED}
    listed = {one.id for one in segments}
    if lost := sorted(found - listed):
        yield _only_in_map(lost)
    if lost := sorted(listed - found):
        yield f"segment {lost[0]}{_more(lost)} of its table in the JSON file has no pixel in the map"


def _only_in_map(lost: Sequence[int]) -> str:
    return f"segment {lost[0]}{_more(lost)} of the map is not in its table in the JSON file"


def _of_masks(masks: np.ndarray, classes: np.ndarray, what: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield objects without a pixel, and those that are there twice."""
    seen: dict[tuple[bytes, int], str] = {}
    for mask, kind, name in zip(masks, classes.tolist(), what, strict=True):
        if not mask.any():
            yield "empty_object", f"{name} has no pixel"
            continue
        key = (np.packbits(mask).tobytes(), kind)
        if key in seen:
            yield "repeated_object", f"{name} has the pixels and the class of {seen[key]}"
        seen.setdefault(key, name)


def _look(target: InstancesTarget, problems: Sequence[tuple[str, str]] = ()) -> TruthLook:
    masks = np.asarray(target.masks)
    counts = Counter(np.asarray(target.classes).tolist())
    return TruthLook(size=(masks.shape[1], masks.shape[2]), objects=dict(counts), problems=tuple(problems))


def _with_pixels(target: InstancesTarget) -> InstancesTarget:
    """Return the objects that have a pixel."""
    masks = np.asarray(target.masks)
    kept = masks.any(axis=(1, 2))
    if kept.all():
        return target
    return InstancesTarget(masks[kept], np.asarray(target.classes)[kept], np.asarray(target.crowd)[kept])


def _header_size(path: Path) -> Size:
    shape = read_shape(path)
    return shape.height, shape.width


def _size(array: np.ndarray) -> Size:
    return array.shape[0], array.shape[1]


def _more(lost: Sequence[int]) -> str:
    return f" and {len(lost) - 1} more" if len(lost) > 1 else ""


def _text(error: DataError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")
