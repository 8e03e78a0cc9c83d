"""Lists of pairs: one line a sample, `image,mask`, in a CSV or text file.

Fields are separated by a comma, semicolon or tab, else by white space. Paths are relative to the list's folder, else
to the dataset's root. A first line without an image's ending is a header. Lines that begin with `#` and empty lines
are skipped. In split test the mask may be left out.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

from segatlas.data.datasets.listing import Item
from segatlas.data.formats.images import IMAGE_ENDINGS
from segatlas.errors import DataError
from segatlas.files import read_text


def read_items(path: Path, root: Path, split: str) -> tuple[Item, ...]:
    """Read the items of a split from a list, in the list's order.

    Raises:
        DataError: naming the list and the line: a missing file, a missing mask outside test, an image listed twice.
    """
    if not path.is_file():
        raise DataError(f"no such list (data.lists.{split})", path)
    lines = read_text(path).splitlines()
    items: dict[str, Item] = {}
    for number, fields in _rows(lines, path):
        image = _locate(fields[0], path, root, number)
        mask = _locate(fields[1], path, root, number) if len(fields) == 2 and fields[1] else None
        if mask is None and split != "test":
            raise DataError(f"line {number}: {fields[0]} has no mask; expected 'image,mask'", path)
        key = _key(image, root)
        if key in items:
            raise DataError(f"line {number}: {fields[0]} is listed twice", path)
        items[key] = Item(key=key, image=image, target=mask)
    return tuple(items.values())


def _rows(lines: list[str], path: Path) -> list[tuple[int, list[str]]]:
    rows: list[tuple[int, list[str]]] = []
    delimiter = next((mark for mark in ",;\t" if any(mark in line for line in lines)), None)
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = line.split() if delimiter is None else next(csv.reader([line], delimiter=delimiter))
        fields = [field.strip() for field in fields]
        is_header = not rows and Path(fields[0]).suffix.lower() not in IMAGE_ENDINGS
        if is_header and number == 1:
            continue
        if len(fields) > 2:
            raise DataError(f"line {number}: {len(fields)} fields; expected 'image,mask'", path)
        rows.append((number, fields))
    return rows


def _locate(name: str, path: Path, root: Path, number: int) -> Path:
    for folder in (path.parent, root):
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"line {number}: no file {name} in {path.parent} or {root}", path)


def _key(image: Path, root: Path) -> str:
    """Return the path below the root without ending; of an image elsewhere, the whole path."""
    whole = Path(os.path.abspath(image)).with_suffix("")
    base = Path(os.path.abspath(root))
    return (whole.relative_to(base) if whole.is_relative_to(base) else whole.relative_to(whole.anchor)).as_posix()
