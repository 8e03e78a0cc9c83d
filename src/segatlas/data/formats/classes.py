"""The file `classes.json` or `classes.txt` in a dataset's root: names, and colours if any, by class index."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segatlas.data.formats.dataset_json import plain_names
from segatlas.data.formats.masks import MAX_CLASSES
from segatlas.errors import DataError, UsageError
from segatlas.files import read_text, whole_file

Color = tuple[int, int, int]
JSON_FILE, TEXT_FILE = "classes.json", "classes.txt"


@dataclass(frozen=True, kw_only=True)
class ClassNames:
    """Class names by index, and the RGB colour of each (None where the file gives none)."""

    names: tuple[str, ...]
    colors: tuple[Color, ...] | None = None


BACKGROUND_NAMES = ("background", "ground", "other", "others", "rest", "bg")
"""What the class of everything else is called."""


def background_of(names: Sequence[str], stated: str | None = None) -> int | None:
    """Return the class of everything else: the stated one, else one that is called so; None where there is none.

    stated: a name; "none" says that no class is.

    Raises:
        UsageError: no class has the stated name.
    """
    if stated == "none":
        return None
    if stated:
        if stated not in names:
            close = difflib.get_close_matches(stated, names, n=1)
            hint = f", nearest {close[0]!r}" if close else ""
            raise UsageError(f"background: {stated!r} is none of the {len(names)} classes{hint}")
        return list(names).index(stated)
    return next((place for place, name in enumerate(names) if name.lower() in BACKGROUND_NAMES), None)


def read_classes(root: str | Path) -> ClassNames | None:
    """Read the class table of a dataset, or return None where it has none.

    `classes.json` is a list of names, or of {"name": ..., "color": [r, g, b]}; `classes.txt` has one name a line. Where
    neither is there, nnU-Net's `dataset.json` may name values.

    Raises:
        DataError: the file is damaged or empty, names a class twice or more than 255 classes, or gives colours to some
            classes only.
    """
    json_path, text_path = Path(root) / JSON_FILE, Path(root) / TEXT_FILE
    path = next((path for path in (json_path, text_path) if path.is_file()), None)
    if path is not None:
        return read_class_file(path)
    names = plain_names(Path(root))
    return None if names is None else ClassNames(names=names)


def read_class_file(path: Path) -> ClassNames:
    """Read a class table: JSON where the file ends in `.json`, else a name a line; errors as of `read_classes`."""
    if path.suffix.lower() == ".json":
        table = _read_json(path)
    else:
        lines = read_text(path).splitlines()
        table = ClassNames(names=tuple(line.strip() for line in lines if line.strip()))
    if not table.names:
        raise DataError("names no class", path)
    if len(table.names) > MAX_CLASSES:
        raise DataError(f"names {len(table.names)} classes, at most {MAX_CLASSES} are possible", path)
    twice = [name for i, name in enumerate(table.names) if name in table.names[:i]]
    if twice:
        raise DataError(f"class {twice[0]!r} occurs twice", path)
    return table


def write_classes(path: str | Path, names: Sequence[str], colors: Sequence[Color]) -> None:
    """Write a `classes.json` that `read_classes` reads."""
    entries = [{"name": name, "color": list(color)} for name, color in zip(names, colors, strict=True)]
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def _read_json(path: Path) -> ClassNames:
    try:
        entries = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not JSON ({error})", path) from error
    if not isinstance(entries, list):
        raise DataError(f'expected a list of names or of {{"name", "color"}}, got {type(entries).__name__}', path)
    if all(isinstance(entry, str) for entry in entries):
        return ClassNames(names=tuple(entries))
    pairs = [_read_entry(entry, index, path) for index, entry in enumerate(entries)]
    colors = [color for _, color in pairs if color is not None]
    if colors and len(colors) < len(pairs):
        raise DataError(f"{len(colors)} of {len(pairs)} classes have a colour; give all or none", path)
    return ClassNames(names=tuple(name for name, _ in pairs), colors=tuple(colors) or None)


def _read_entry(entry: Any, index: int, path: Path) -> tuple[str, Color | None]:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise DataError(f'entry {index} is {entry!r}; expected {{"name": "...", "color": [r, g, b]}}', path)
    color = entry.get("color")
    if color is None:
        return entry["name"], None
    if not (isinstance(color, list) and len(color) == 3 and all(isinstance(v, int) and 0 <= v <= 255 for v in color)):
        raise DataError(f"class {entry['name']!r}: colour {color!r}; expected three integers 0..255", path)
    return entry["name"], (color[0], color[1], color[2])
