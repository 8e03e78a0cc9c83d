"""Lists of files: one line a sample, in a CSV or text file.

Fields are separated by a comma, semicolon or tab, else by white space. Paths are relative to the list's folder, else
to the dataset's root. Lines that begin with `#` and empty lines are skipped. In split test the mask may be left out.

Of images and masks alone a line is `image,mask`; a first line without an image's ending is a header. With further
inputs the first line names the columns, `image`, `mask` and each source, in any order; other columns are left aside.
"""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segatlas.data.datasets.listing import Item
from segatlas.data.formats.images import IMAGE_ENDINGS
from segatlas.errors import DataError
from segatlas.files import read_text

IMAGE, MASK = "image", "mask"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The further inputs that a list names in columns of their own; `optional` are those whose field may be empty."""

    sources: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def read_items(path: Path, root: Path, split: str, columns: Columns | None = None) -> tuple[Item, ...]:
    """Read the items of a split from a list, in the list's order.

    columns: the further inputs that it must name.

    Raises:
        DataError: naming the list and the line: a missing file, a missing mask outside test, an image listed twice, a
            missing column.
    """
    if not path.is_file():
        raise DataError(f"no such list (data.lists.{split})", path)
    lines = read_text(path).splitlines()
    items: dict[str, Item] = {}
    sources = () if columns is None else columns.sources
    rows = _pairs(lines, path) if columns is None else _named(lines, path, (IMAGE, *sources), split)
    for number, fields in rows:
        image = _locate(fields[IMAGE], path, root, number)
        mask = _locate(fields[MASK], path, root, number) if fields.get(MASK) else None
        if mask is None and split != "test":
            raise DataError(f"line {number}: {fields[IMAGE]} has no mask; expected '{_form(sources)}'", path)
        key = _key(image, root)
        if key in items:
            raise DataError(f"line {number}: {fields[IMAGE]} is listed twice", path)
        lost = next(
            (name for name in sources if not fields[name] and name not in (columns or Columns()).optional), None
        )
        if lost is not None:
            raise DataError(f"line {number}: {fields[IMAGE]} has no {lost}; expected '{_form(sources)}'", path)
        found = {name: _locate(fields[name], path, root, number) for name in sources if fields[name]}
        items[key] = Item(key=key, image=image, target=mask, sources=found)
    return tuple(items.values())


def _form(sources: Sequence[str]) -> str:
    return ",".join((IMAGE, *sources, MASK))


def _pairs(lines: list[str], path: Path) -> list[tuple[int, Mapping[str, str]]]:
    """Return number and fields of each line of a list of images and masks."""
    rows: list[tuple[int, Mapping[str, str]]] = []
    for number, fields in _rows(lines):
        is_header = not rows and Path(fields[0]).suffix.lower() not in IMAGE_ENDINGS
        if is_header and number == 1:
            continue
        if len(fields) > 2:
            raise DataError(f"line {number}: {len(fields)} fields; expected '{_form(())}'", path)
        rows.append((number, dict(zip((IMAGE, MASK), fields, strict=False))))
    return rows


def _named(lines: list[str], path: Path, needed: Sequence[str], split: str) -> list[tuple[int, Mapping[str, str]]]:
    """Return number and fields of each line behind the one that names the columns."""
    rows = _rows(lines)
    expected = needed if split == "test" else (*needed, MASK)
    header = rows[0][1] if rows else []
    lost = [name for name in expected if name not in header]
    if lost:
        close = difflib.get_close_matches(lost[0], header, n=1)
        hint = f"; the nearest is {close[0]!r}" if close else ""
        text = (
            f"has no column {', '.join(map(repr, lost))}: its first line names {', '.join(header) or 'nothing'}{hint}"
        )
        raise DataError(f"{text}; expected {_form(needed[1:])!r}", path)
    twice = next((name for name in expected if header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"names the column {twice!r} twice", path)
    for number, fields in rows[1:]:
        if len(fields) != len(header):
            raise DataError(f"line {number}: {len(fields)} fields, its first line names {len(header)}", path)
    return [(number, dict(zip(header, fields, strict=True))) for number, fields in rows[1:]]


def _rows(lines: list[str]) -> list[tuple[int, list[str]]]:
    """Return number and fields of each line that is neither empty nor a remark."""
    rows: list[tuple[int, list[str]]] = []
    delimiter = next((mark for mark in ",;\t" if any(mark in line for line in lines)), None)
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = line.split() if delimiter is None else next(csv.reader([line], delimiter=delimiter))
        rows.append((number, [field.strip() for field in fields]))
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
