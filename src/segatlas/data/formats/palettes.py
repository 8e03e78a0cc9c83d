"""Colours for classes: where a dataset brings none, and files that hold some."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from segatlas.errors import DataError
from segatlas.files import read_text

Color = tuple[int, int, int]

HEX = re.compile(r"#?([0-9a-fA-F]{6})")
NUMBERS = re.compile(r"\(?\[?\s*(\d+)[\s,;]+(\d+)[\s,;]+(\d+)\s*\]?\)?")


def voc_palette(count: int) -> tuple[Color, ...]:
    """Return the first `count` (at most 256) colours of the PASCAL VOC rule, as RGB 0..255.

    Bits 0, 1, 2 of the index go to the top bits of red, green, blue, bits 3, 4, 5 to the next lower ones, and so on:
    neighbouring indices differ strongly, and index 0 is black.
    """
    return tuple(_voc_color(index) for index in range(count))


def _voc_color(index: int) -> Color:
    color = [0, 0, 0]
    for bit in range(8):
        color[bit % 3] |= ((index >> bit) & 1) << (7 - bit // 3)
    return color[0], color[1], color[2]


def read_palette(path: str | Path) -> tuple[Color, ...]:
    """Return the colours of a file, that of class 0 first.

    A text has a colour a line, `#1f77b4` or `31 119 180` (commas may part the numbers), and a name behind it where
    wanted; empty lines are left out. A `.json` is a list of colours, each [r, g, b] or "#1f77b4", or of {"color": ...},
    as `classes.json` has it.

    Raises:
        DataError: it cannot be read, holds no colour, or a line or entry that is none.
    """
    path = Path(path)
    text = read_text(path)
    if path.suffix.lower() == ".json":
        entries = _entries(text, path)
        colors = [_color(entry.get("color") if isinstance(entry, dict) else entry) for entry in entries]
        where, shown = "entry", entries
    else:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        colors = [_color(line) for line in lines]
        where, shown = "line", lines
    if not colors:
        raise DataError("holds no colour", path)
    for number, (color, entry) in enumerate(zip(colors, shown, strict=True), start=1):
        if color is None:
            raise DataError(f"{where} {number} is {str(entry)[:60]!r}; expected a colour, #1f77b4 or 31 119 180", path)
    return tuple(color for color in colors if color is not None)


def _entries(text: str, path: Path) -> list[Any]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not JSON ({error})", path) from error
    if not isinstance(entries, list):
        raise DataError(f"expected a list of colours, got {type(entries).__name__}", path)
    return entries


def _color(entry: Any) -> Color | None:
    """Return the colour that an entry is, or that a line begins with; None where it is none."""
    if isinstance(entry, str):
        if found := HEX.match(entry):
            value = int(found[1], 16)
            return value >> 16, value >> 8 & 255, value & 255
        found = NUMBERS.match(entry)
        entry = [int(part) for part in found.groups()] if found else None
    if not isinstance(entry, list) or len(entry) != 3:
        return None
    if not all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255 for value in entry):
        return None
    return entry[0], entry[1], entry[2]
