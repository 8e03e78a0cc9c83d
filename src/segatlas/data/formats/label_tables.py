"""Tables that say of images what is in them: boxes (CSV, COCO's form, VOC's XML) and classes of whole images (CSV).

Letters: x0, y0 the first pixel of a box, x1, y1 the one behind its last. What is wrong with single rows is part of the
result, a file that is no such table is a DataError.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from segatlas.data.formats.coco import read_coco
from segatlas.errors import DataError
from segatlas.files import read_text

Corners = tuple[float, float, float, float]
Size = tuple[int, int]
Columns = Mapping[str, tuple[str, ...]]

IMAGE_COLUMN = ("image", "filename", "file_name", "file", "path", "image_id")
BOX_COLUMNS: Columns = {
    "image": IMAGE_COLUMN,
    "class": ("class", "label", "category", "name"),
    "x0": ("x0", "xmin", "x_min", "left"),
    "y0": ("y0", "ymin", "y_min", "top"),
    "x1": ("x1", "xmax", "x_max", "right"),
    "y1": ("y1", "ymax", "y_max", "bottom"),
}
"""Column of a list of boxes -> what it may be called."""

CLASS_COLUMNS: Columns = {"image": IMAGE_COLUMN, "classes": ("classes", "class", "labels", "label")}
"""The same of a list of classes of images."""

BETWEEN_CLASSES = ";"
LARGEST_XML = 1 << 24
"""Bytes of an XML file that are read: one that describes an image has a few thousand."""


@dataclass(frozen=True, kw_only=True)
class LabelledBox:
    """A box as a file has it. name: its class. corners: x0, y0, x1, y1. place: where it stands, for messages.

    crowd: several objects that were not told apart. size: (H, W) of the image it was drawn on, None = not said.
    """

    name: str
    corners: Corners
    place: str
    crowd: bool = False
    size: Size | None = None


@dataclass(frozen=True, kw_only=True)
class BoxTable:
    """Boxes by image, as the file calls it, without its ending. faults: text of each row that could not be read."""

    boxes: Mapping[str, tuple[LabelledBox, ...]]
    faults: tuple[str, ...] = ()


def read_box_table(path: Path) -> BoxTable:
    """Read a list of boxes: `.json` of COCO's form, else CSV with the columns of BOX_COLUMNS.

    A row with an image alone says that it shows nothing.

    Raises:
        DataError: not there, or no such table.
    """
    return _read_coco_boxes(path) if path.suffix.lower() == ".json" else _read_csv_boxes(path)


def read_voc_boxes(path: Path) -> tuple[LabelledBox, ...]:
    """Read the boxes of one image from an XML file of PASCAL VOC's form, whose first pixel is number 1.

    Raises:
        DataError: no XML, or an object without name or box.
    """
    try:
        if path.stat().st_size > LARGEST_XML:
            raise DataError(f"has {path.stat().st_size} bytes; at most {LARGEST_XML} are read", path)
        text = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path) from error
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise DataError("declares a document type or entities, which boxes have no use for", path)
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"is not XML, is it cut off? ({error})", path) from error
    boxes = []
    sides = [_number(root.findtext(f"size/{name}") or "") for name in ("height", "width")]
    size = (int(sides[0]), int(sides[1])) if sides[0] and sides[1] else None  # some tools write 0 and 0
    for number, entry in enumerate(root.findall("object"), start=1):
        texts = [entry.findtext(f"bndbox/{name}") for name in ("xmin", "ymin", "xmax", "ymax")]
        name = (entry.findtext("name") or "").strip()
        values = [_number(text or "") for text in texts]
        if not name or any(value is None for value in values):
            raise DataError(f"object {number} has no name, or no box of four numbers", path)
        x0, y0, x1, y1 = (float(value) for value in values if value is not None)
        corners = (x0 - 1, y0 - 1, x1, y1)
        boxes.append(LabelledBox(name=name, corners=corners, place=f"object {number}", size=size))
    return tuple(boxes)


def read_class_table(path: Path) -> dict[str, tuple[tuple[str, ...], int]]:
    """Read a list of classes of images: columns `image` and `classes`, names with `;` between them.

    Returns:
        Image as the file calls it, without its ending -> names (none: nothing of the classes is there), line.

    Raises:
        DataError: not there, no such table, or an image listed twice.
    """
    found: dict[str, tuple[tuple[str, ...], int]] = {}
    for number, row in _rows(path, CLASS_COLUMNS):
        key = image_key(row["image"])
        if key in found:
            raise DataError(f"line {number}: {row['image']} is listed twice, first in line {found[key][1]}", path)
        names = (name.strip() for name in row["classes"].split(BETWEEN_CLASSES))
        found[key] = tuple(name for name in names if name), number
    return found


def image_key(name: str) -> str:
    """Return what a table calls an image, without an ending of images; patterns stay as they are."""
    from segatlas.data.formats.listing import is_image_name

    path = PurePosixPath(name.strip())
    return (path.with_suffix("") if is_image_name(str(path)) else path).as_posix()


def _read_csv_boxes(path: Path) -> BoxTable:
    boxes: dict[str, list[LabelledBox]] = {}
    faults = []
    for number, row in _rows(path, BOX_COLUMNS):
        of_image = boxes.setdefault(image_key(row["image"]), [])
        texts = [row[name] for name in ("x0", "y0", "x1", "y1")]
        if not row["class"] and not any(texts):
            continue
        x0, y0, x1, y1 = (_number(text) for text in texts)
        if not row["class"] or x0 is None or y0 is None or x1 is None or y1 is None:
            faults.append(f"line {number}: expected a class and four finite numbers, got {', '.join(row.values())}")
            continue
        of_image.append(LabelledBox(name=row["class"], corners=(x0, y0, x1, y1), place=f"line {number}"))
    return BoxTable(boxes={key: tuple(found) for key, found in boxes.items()}, faults=tuple(faults))


def _read_coco_boxes(path: Path) -> BoxTable:
    file = read_coco(path)
    names = {one.id: one.name for one in file.categories}
    boxes: dict[str, tuple[LabelledBox, ...]] = {}
    faults = [text for _, text in file.faults]
    for image in file.images:
        found = []
        for one in file.objects.get(image.id, ()):
            place = f"annotation {one.id}"
            if one.box is None:
                faults.append(f"{place} has no box of four finite numbers")
                continue
            x, y, width, height = one.box
            corners = (x, y, x + width, y + height)
            name = names[one.category]
            found.append(LabelledBox(name=name, corners=corners, place=place, crowd=one.crowd, size=image.size))
        if (key := image_key(image.file_name)) in boxes:
            faults.append(f"image {image.id}: {image.file_name} is listed twice")
        boxes[key] = (*boxes.get(key, ()), *found)
    return BoxTable(boxes=boxes, faults=tuple(faults))


def _rows(path: Path, columns: Columns) -> list[tuple[int, dict[str, str]]]:
    """Return (line, text by column) of a CSV file with a head; DataError where a column is missing."""
    lines = read_text(path).splitlines()
    head_line = next((line for line in lines if line.strip()), "")
    delimiter = next((mark for mark in ",\t|" if mark in head_line), ",")
    try:
        rows = list(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"is no CSV file: {error}", path) from error
    first = next((index for index, row in enumerate(rows) if any(field.strip() for field in row)), None)
    if first is None:
        raise DataError(f"is empty; expected the columns {', '.join(columns)}", path)
    head = [field.strip().lower() for field in rows[first]]
    places = {name: next((head.index(one) for one in known if one in head), None) for name, known in columns.items()}
    missing = [name for name, place in places.items() if place is None]
    if missing:
        found = ", ".join(head[:12])
        raise DataError(f"has no column {missing[0]}; expected {', '.join(columns)}, found {found}", path)
    read = []
    for number, row in enumerate(rows[first + 1 :], start=first + 2):
        if not any(field.strip() for field in row):
            continue
        if any(field.strip() for field in row[len(head) :]):
            text = f"line {number} has {len(row)} fields, the head {len(head)}: {delimiter.join(row)}"
            raise DataError(f"{text}; several classes of an image have {BETWEEN_CLASSES!r} between them", path)
        texts = {name: _field(row, place) for name, place in places.items()}
        if not texts["image"]:
            raise DataError(f"line {number} names no image", path)
        read.append((number, texts))
    return read


def _field(row: Sequence[str], place: int | None) -> str:
    return row[place].strip() if place is not None and place < len(row) else ""


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
