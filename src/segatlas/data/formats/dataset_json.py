"""`dataset.json` of the Medical Decathlon and of nnU-Net: what values of label volumes mean.

Two forms of its `labels` are read: `{"0": "background", "1": "liver"}` (Decathlon, nnU-Net 1) and `{"background": 0,
"liver": 1}` (nnU-Net 2). A label called "ignore" is no class. nnU-Net's regions, several values a name, are refused.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segatlas.data.formats.masks import IGNORE, MAX_CLASSES
from segatlas.errors import DataError
from segatlas.files import read_text

FILE = "dataset.json"
IGNORE_NAME = "ignore"
FORMS = '{"background": 0, "liver": 1} or {"0": "background", "1": "liver"}'


@dataclass(frozen=True, kw_only=True)
class NamedValues:
    """Class names in the order of their values; value -> class index, or 255 for what is ignored."""

    names: tuple[str, ...]
    label_map: dict[int, int]


def read_labels(root: Path) -> NamedValues | None:
    """Return the classes that the `dataset.json` of a folder names; None where it is not there or has no `labels`.

    Raises:
        DataError: no JSON, or labels of another form, with regions, or with a name or value given twice.
    """
    path = root / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not JSON ({error})", path) from error
    if not isinstance(content, dict) or "labels" not in content:
        return None
    return _named(content["labels"], path)


def plain_names(root: Path) -> tuple[str, ...] | None:
    """Return the names of classes whose values are their indices; None where the file is none, or says other things."""
    try:
        named = read_labels(root)
    except DataError:
        return None
    classes = {} if named is None else {value: index for value, index in named.label_map.items() if index != IGNORE}
    return named.names if named is not None and all(value == index for value, index in classes.items()) else None


def _named(labels: Any, path: Path) -> NamedValues:
    if not isinstance(labels, dict) or not labels:
        raise DataError(f"labels is {_short(labels)}; expected {FORMS}", path)
    pairs = sorted(_pair(key, value, path) for key, value in labels.items())
    for what, found in (("value", [value for value, _ in pairs]), ("name", [name for _, name in pairs])):
        twice = [one for one, count in Counter(found).items() if count > 1]
        if twice:
            raise DataError(f"labels: the {what} {twice[0]!r} is given twice", path)
    names = tuple(name for _, name in pairs if name != IGNORE_NAME)
    if not 1 <= len(names) <= MAX_CLASSES:
        raise DataError(f"labels: {len(names)} classes; 1 to {MAX_CLASSES} are possible", path)
    label_map = {value: IGNORE if name == IGNORE_NAME else names.index(name) for value, name in pairs}
    return NamedValues(names=names, label_map=label_map)


def _pair(key: str, value: Any, path: Path) -> tuple[int, str]:
    """Return (value, name) of an entry of `labels`, in either form."""
    if isinstance(value, list):
        raise DataError(
            f"labels: {key!r} is a region of several values, {_short(value)}; here a voxel has one class: name "
            "the values themselves in data.classes=[...], that of 0 first",
            path,
        )
    if isinstance(value, str) and key.isascii() and key.isdecimal():
        return int(key), value.strip()
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value, key.strip()
    raise DataError(f"labels: got {key!r}: {_short(value)}; expected {FORMS}", path)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
