"""COCO's annotation files: objects as polygons or run-length codes, and the tables of panoptic maps.

A file is read once; what is wrong with single entries is part of the result (`CocoFile.faults`), a file that is no such
file is a DataError. Categories may be numbered as they like: classes are counted by rising number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from segatlas.data.formats.polygons import draw_polygons
from segatlas.errors import DataError
from segatlas.files import read_text
from segatlas.structures.rle import Rle

Box = tuple[float, float, float, float]
Size = tuple[int, int]
Color = tuple[int, int, int]
ImageId = int | str


@dataclass(frozen=True, kw_only=True)
class Category:
    """A class of a file. things: False for stuff; files of objects have things only."""

    id: int
    name: str
    is_thing: bool = True
    color: Color | None = None


@dataclass(frozen=True, kw_only=True)
class CocoImage:
    """An image of a file. id: a number, or a text as Cityscapes and ADE20K have it. size: (H, W) as the file says."""

    id: ImageId
    file_name: str
    size: Size


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoObject:
    """An object as the file has it. shape: corners of polygons, or a run-length code as it stands there.

    area and box (x, y, width, height) are the file's; None where it gives none. fault: why it cannot be read, "" where
    it can.
    """

    id: int
    category: int
    crowd: bool = False
    shape: tuple[np.ndarray, ...] | Mapping[str, Any] = ()
    area: float | None = None
    box: Box | None = None
    fault: str = ""

    def bitmap(self, size: Size) -> np.ndarray:
        """Return its mask, (H, W) bool. DataError where there is none of that size."""
        if self.fault:
            raise DataError(self.fault)
        if isinstance(self.shape, tuple):
            return draw_polygons(self.shape, size)
        rle = Rle.read(self.shape)
        if rle.size != size:
            found, wanted = (f"{height} x {width}" for height, width in (rle.size, size))
            raise DataError(f"its run-length code is of {found} pixels (height x width), its image of {wanted}")
        return rle.bitmap()

    @property
    def identity(self) -> bytes:
        """Bytes that differ where the masks are told differently."""
        if isinstance(self.shape, tuple):
            return b"p" + b"|".join(part.tobytes() for part in self.shape)
        return b"r" + json.dumps(self.shape, sort_keys=True).encode()


@dataclass(frozen=True, kw_only=True)
class CocoSegment:
    """A segment of a panoptic map as the file has it; area and box as of `CocoObject`."""

    id: int
    category: int
    crowd: bool = False
    area: float | None = None
    box: Box | None = None


@dataclass(frozen=True, kw_only=True)
class CocoMap:
    """What a file says of one panoptic map. file_name: of the PNG."""

    file_name: str
    segments: tuple[CocoSegment, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoFile:
    """An annotation file. objects and maps: by the number of their image. faults: (kind of finding, text) each."""

    path: Path
    categories: tuple[Category, ...]
    images: tuple[CocoImage, ...]
    objects: Mapping[ImageId, Sequence[CocoObject]] = field(default_factory=dict)
    maps: Mapping[ImageId, CocoMap] = field(default_factory=dict)
    faults: tuple[tuple[str, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, by rising number of their category."""
        return tuple(one.name for one in self.categories)


def read_coco(path: str | Path) -> CocoFile:
    """Read an annotation file of COCO's form, of objects or of panoptic maps.

    Raises:
        DataError: not there, no JSON (cut off, for instance), or without the lists of such a file.
    """
    path = Path(path)
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path) from error
    return _read(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _read(path: Path, changed: int, size: int) -> CocoFile:
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not JSON, is it cut off? ({error})", path) from error
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in lists):
        raise DataError(f"is no annotation file of COCO's form: expected the lists {', '.join(lists)}", path)
    faults: list[tuple[str, str]] = []
    categories = tuple(sorted(_entries(content["categories"], _category, "category", faults), key=lambda one: one.id))
    images = _entries(content["images"], _image, "image", faults)
    _twice([one.id for one in categories], "category", faults)
    _twice([one.id for one in images], "image", faults)
    if not categories:
        raise DataError("has no category", path)
    if len({one.name for one in categories}) < len(categories):
        raise DataError("gives two categories one name", path)
    known = {one.id for one in categories}, {one.id for one in images}
    if any(isinstance(one, dict) and "segments_info" in one for one in content["annotations"]):
        maps = _maps(content["annotations"], known, faults)
        return CocoFile(path=path, categories=categories, images=tuple(images), maps=maps, faults=tuple(faults))
    objects = _objects(content["annotations"], known, faults)
    return CocoFile(path=path, categories=categories, images=tuple(images), objects=objects, faults=tuple(faults))


Known = tuple[set[int], set[ImageId]]
"""Numbers of categories, and of images, that a file lists."""


def _entries(entries: list[Any], read: Callable[[Any], Any], what: str, faults: list[tuple[str, str]]) -> list[Any]:
    found = []
    for place, entry in enumerate(entries):
        try:
            found.append(read(entry))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            missing = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            faults.append(("bad_annotation", f"{what} {place} of the list cannot be read: {missing}"))
    return found


def _category(entry: Any) -> Category:
    color = entry.get("color")
    name = entry["name"]
    if not isinstance(name, str) or not name:
        raise ValueError(f"its name is {name!r}")
    return Category(
        id=_whole(entry["id"]),
        name=name,
        is_thing=bool(entry.get("isthing", 1)),
        color=tuple(int(value) for value in color) if isinstance(color, list) and len(color) == 3 else None,  # type: ignore[arg-type]
    )


def _image(entry: Any) -> CocoImage:
    size = (_whole(entry["height"]), _whole(entry["width"]))
    if min(size) < 1 or not isinstance(entry["file_name"], str):
        raise ValueError(f"its size is {size[1]} x {size[0]}, its file {entry['file_name']!r}")
    return CocoImage(id=_image_id(entry["id"]), file_name=entry["file_name"], size=size)


def _objects(entries: list[Any], known: Known, faults: list[tuple[str, str]]) -> dict[ImageId, list[CocoObject]]:
    objects: dict[ImageId, list[CocoObject]] = {}
    for image, one in _entries(entries, _object, "annotation", faults):
        if _is_known(f"annotation {one.id}", image, one.category, known, faults):
            objects.setdefault(image, []).append(one)
    _twice([one.id for found in objects.values() for one in found], "annotation", faults)
    return objects


def _object(entry: Any) -> tuple[ImageId, CocoObject]:
    fault, shape = "", entry.get("segmentation")
    area, box, wrong = _numbers(entry)
    if isinstance(shape, dict):
        shape = {"size": shape.get("size"), "counts": shape.get("counts")}
    else:
        shape, fault = _polygons(shape)
    one = CocoObject(
        id=_whole(entry["id"]),
        category=_whole(entry["category_id"]),
        crowd=bool(entry.get("iscrowd", 0)),
        shape=shape,
        area=area,
        box=box,
        fault=wrong or fault,
    )
    return _image_id(entry["image_id"]), one


def _polygons(given: Any) -> tuple[tuple[np.ndarray, ...], str]:
    """Return the corners of each part, and what is wrong with them."""
    if not isinstance(given, list) or not given:
        return (), "it has no segmentation: neither polygons nor a run-length code"
    try:
        parts = tuple(np.array(part, np.float64).reshape(-1) for part in given)
    except (TypeError, ValueError):
        return (), "its polygons are no lists of numbers"
    if any(part.size % 2 or part.size < 6 for part in parts):
        return (), "a polygon of fewer than three corners, or with an odd number of coordinates"
    if not all(np.isfinite(part).all() for part in parts):
        return (), "a polygon with a coordinate that is no finite number"
    if any(np.abs(part).max() > _FARTHEST for part in parts):
        return (), "a polygon with a coordinate that no image has"
    return parts, ""


_FARTHEST = 1 << 20
"""Pixels beyond which a corner is damage: an outline is walked along in steps."""


def _maps(entries: list[Any], known: Known, faults: list[tuple[str, str]]) -> dict[ImageId, CocoMap]:
    found = _entries(entries, _map, "annotation", faults)
    _twice([image for image, _, _ in found], "map of image", faults)
    maps = {}
    for image, file_name, segments in found:
        if image not in known[1]:
            faults.append(("unknown_image", f"{file_name} is a map of image {image}, which the file does not list"))
            continue
        read = _entries(segments, _segment, f"{file_name}: segment", faults)
        _twice([one.id for one in read], f"{file_name}: segment", faults)
        for one in read:
            _is_known(f"{file_name}: segment {one.id}", image, one.category, known, faults)
        maps[image] = CocoMap(file_name=file_name, segments=tuple(read))
    return maps


def _map(entry: Any) -> tuple[ImageId, str, list[Any]]:
    if not isinstance(entry["segments_info"], list) or not isinstance(entry["file_name"], str):
        raise ValueError("segments_info is no list, or file_name no text")
    return _image_id(entry["image_id"]), entry["file_name"], entry["segments_info"]


def _segment(entry: Any) -> CocoSegment:
    area, box, wrong = _numbers(entry)
    if wrong:
        raise ValueError(f"segment {entry.get('id')}: {wrong}")
    return CocoSegment(
        id=_whole(entry["id"]),
        category=_whole(entry["category_id"]),
        crowd=bool(entry.get("iscrowd", 0)),
        area=area,
        box=box,
    )


def _numbers(entry: Any) -> tuple[float | None, Box | None, str]:
    """Return area and box, None where there are none, and what is wrong with them."""
    area, box = entry.get("area"), entry.get("bbox")
    if box is not None and not (isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box))):
        return None, None, f"its box is {json.dumps(box)[:80]}, expected four finite numbers: x, y, width, height"
    if area is not None and not _is_finite(area):
        return None, None, f"its area is {area!r}, expected a finite number"
    return area, None if box is None else (box[0], box[1], box[2], box[3]), ""


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _image_id(value: Any) -> ImageId:
    return value if isinstance(value, str) and value else _whole(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError(f"{value!r} is no whole number")
    return int(value)


def _is_known(what: str, image: ImageId, category: int, known: Known, faults: list[tuple[str, str]]) -> bool:
    if image not in known[1]:
        faults.append(("unknown_image", f"{what} is of image {image}, which the file does not list"))
    elif category not in known[0]:
        faults.append(("unknown_class", f"{what} is of category {category}, which the file does not list"))
    else:
        return True
    return False


def _twice(numbers: Sequence[ImageId], what: str, faults: list[tuple[str, str]]) -> None:
    seen: set[ImageId] = set()
    told: set[ImageId] = set()
    for number in numbers:
        if number in seen and number not in told:
            told.add(number)
            faults.append(("duplicate_id", f"{what} {number} is listed {numbers.count(number)} times"))
        seen.add(number)


def outside(one: CocoObject, size: Size, slack: float = 1.0) -> float:
    """Return by how many pixels a polygon leaves an image, beyond `slack`; 0.0 where it does not."""
    if not isinstance(one.shape, tuple) or not one.shape:
        return 0.0
    points = np.concatenate(one.shape).reshape(-1, 2)
    far = max(-points.min(), points[:, 0].max() - size[1], points[:, 1].max() - size[0])
    return float(far) if far > slack else 0.0


def numbers_of(mask: np.ndarray) -> tuple[int, Box]:
    """Return area and box (x, y, width, height) of a (H, W) mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return 0, (0, 0, 0, 0)
    top, left = int(rows[0]), int(columns[0])
    return int(mask.sum()), (left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top)


def misfits(
    area: float | None, box: Box | None, mask: np.ndarray, *, exact: bool, found: tuple[int, Box] | None = None
) -> Iterator[str]:
    """Yield how a stated area or box differs from the mask's.

    exact: both are counted in pixels, as of maps and run-length codes. Else they are those of a polygon, whose area
    differs from that of its pixels by up to half the outline, and whose box by a pixel or so.
    """
    true_area, true_box = numbers_of(mask) if found is None else found
    sides = true_box[2] + true_box[3]
    slack = 0.5 if exact else max(0.15 * true_area, 2.0 * sides, 8.0)
    if area is not None and abs(area - true_area) > slack:
        yield f"its area is stated as {area:g}, its mask has {true_area} pixels"
    if box is not None and true_area:
        ends = [(one[0], one[1], one[0] + one[2], one[1] + one[3]) for one in (box, true_box)]
        if max(abs(a - b) for a, b in zip(*ends, strict=True)) > (1.0 if exact else 3.0):
            stated, true = (", ".join(f"{value:g}" for value in one) for one in (box, true_box))
            yield f"its box is stated as {stated}, its mask has {true} (x, y, width, height)"
