"""Files that hold one number for each object, and what the numbers mean."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from segatlas.data.formats.stored import Stored, codes_of
from segatlas.errors import DataError
from segatlas.files import read_text
from segatlas.structures import InstancesTarget

OBJECTS_PER_CLASS = 1000
"""A pixel of the n-th object of a class holds class * 1000 + n."""

Meaning = Literal["divisor", "table", "single"]


@dataclass(frozen=True, kw_only=True)
class InstanceRule:
    """Maps of objects: a pixel holds the number of its object, 0 is none.

    num_classes: K. meaning: how a number tells its class. "divisor": class * divisor + n; "single": all objects are of
    the class `single`; "table": a file of the map's name, `.json` or `.csv`, says it; None: a table where there is one,
    else as the numbers leave only one of the other two open, else the file is refused.
    first: the first class that has objects. names: of the classes, for tables that name them.
    """

    num_classes: int
    meaning: Meaning | None = "divisor"
    divisor: int = OBJECTS_PER_CLASS
    first: int = 1
    single: int | None = None
    names: Sequence[str] = ()

    def codes(self, stored: Stored, path: Path) -> np.ndarray:
        """Return the numbers of a file's pixels, (H, W).

        Raises:
            DataError: colours, or numbers that a compression with loss may have changed.
        """
        if stored.lossy:
            raise DataError("is compressed with loss, which changes the numbers of objects; write PNG", path)
        codes = codes_of(stored, path)
        if codes.ndim != 2:
            raise DataError(f"holds colours, expected one number a pixel: {self._expected}", path)
        return codes

    def target(self, codes: np.ndarray, path: Path) -> InstancesTarget:
        """Return the objects of (H, W) numbers, by rising number.

        Raises:
            DataError: a number that is neither 0 nor that of an object of a class, or that may be of several.
        """
        values = np.unique(codes)
        values = values[values != 0]
        kinds, crowd = self.classes(values, path)
        return InstancesTarget(codes == values[:, None, None], kinds, crowd)

    def classes(self, values: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Return class and crowd of the numbers (M,) of a map. DataError as `target`."""
        none = np.zeros(len(values), bool)
        if len(values) and values[0] < 0:
            raise DataError(f"holds {values[0]}; expected {self._expected}", path)
        meaning = self.meaning or self._guessed(values, path)
        if meaning == "table":
            table = read_table(path, self.names or [str(index) for index in range(self.num_classes)])
            lost = [value for value in values.tolist() if value not in table]
            if lost:
                raise DataError(f"holds object {lost[0]}{_more(len(lost))}, which {table_of(path)} does not list", path)
            rows = [table[value] for value in values.tolist()]
            return np.array([kind for kind, _ in rows], np.int64), np.array([crowd for _, crowd in rows], bool)
        if meaning == "single":
            if self.single is None:
                raise DataError("which class do its objects have? Name it in data.instances.single", path)
            return np.full(len(values), self.single, np.int64), none
        kinds = values.astype(np.int64) // self.divisor
        wrong = values[(kinds < self.first) | (kinds >= self.num_classes)]
        if wrong.size:
            raise DataError(f"holds {wrong[0]}{_more(wrong.size)}; expected {self._expected}", path)
        return kinds, none

    def _guessed(self, values: np.ndarray, path: Path) -> Meaning:
        """Return the only meaning that the numbers leave open. DataError where there are two."""
        if table_of(path).is_file():
            return "table"
        if not len(values):
            return "divisor"
        kinds = values.astype(np.int64) // self.divisor
        is_divided = bool((kinds >= max(self.first, 1)).all() and (kinds < self.num_classes).all())
        is_counted = self.single is not None and (int(values.max()) < self.divisor or int(values.max()) == len(values))
        if is_divided != is_counted:
            return "divisor" if is_divided else "single"
        what = "may be class * divisor + n, or the numbers of objects" if is_divided else "tell no class"
        raise DataError(
            f"its numbers ({', '.join(map(str, values[:4].tolist()))}{', ...' if len(values) > 4 else ''}) {what}: say "
            "which it is, data.instances={classes: divisor} (class * 1000 + n), {classes: single, single: NAME}, or "
            "{classes: table} with a table beside each map",
            path,
        )

    @property
    def _expected(self) -> str:
        if self.meaning == "divisor":
            return f"0, or class * {self.divisor} + n of class {self.first}..{self.num_classes - 1}"
        return "0, or the number of an object"


def table_of(path: Path) -> Path:
    """Return the file that tells the classes of a map's objects: the one that is there, else the JSON's name."""
    found = path.with_suffix(".csv")
    return found if found.is_file() else path.with_suffix(".json")


def read_table(path: Path, names: Sequence[str]) -> Mapping[int, tuple[int, bool]]:
    """Return number -> (class, crowd) of the objects of a map.

    The table beside it has its name: `.json` with {"number": class} or [{"id", "class", "crowd"}, ...], or `.csv` with
    a header of id, class and, where wanted, crowd. A class is a name or an index.

    Raises:
        DataError: no such table, damaged, a number listed twice, or a class that is none.
    """
    file = table_of(path)
    if not file.is_file():
        raise DataError(f"has no table of its objects: expected {path.with_suffix('.json')} or .csv", path)
    rows = _json_rows(file) if file.suffix == ".json" else _csv_rows(file)
    found: dict[int, tuple[int, bool]] = {}
    for number, kind, crowd in rows:
        if not number.isdecimal() or int(number) == 0:
            raise DataError(f"lists object {number!r}; expected a whole number from 1", file)
        if int(number) in found:
            raise DataError(f"lists object {number} twice", file)
        found[int(number)] = (class_index(kind, names, file), crowd)
    return found


def class_index(kind: str, names: Sequence[str], path: Path) -> int:
    """Return the class that a name or an index means. DataError where it means none."""
    if kind in names:
        return list(names).index(kind)
    if kind.isdecimal() and int(kind) < len(names):
        return int(kind)
    raise DataError(f"class {kind!r} is none of {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}", path)


def _json_rows(file: Path) -> list[tuple[str, str, bool]]:
    try:
        content = json.loads(read_text(file), object_pairs_hook=list)
        if content and all(isinstance(entry, list) for entry in content):  # of pairs, each an object; else a pair
            return [(str(one["id"]), str(one["class"]), bool(one.get("crowd", False))) for one in map(dict, content)]
        return [(str(number), str(kind), False) for number, kind in content]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        text = 'is no table of objects: expected {"1": "name", ...} or [{"id": 1, "class": "name"}, ...]'
        raise DataError(f"{text} ({error})", file) from error


def _csv_rows(file: Path) -> list[tuple[str, str, bool]]:
    try:
        rows = list(csv.DictReader(read_text(file).splitlines(), strict=True, restkey="more"))
    except csv.Error as error:
        raise DataError(f"is no table of objects ({error})", file) from error
    if any(not {"id", "class"} <= set(row) or "more" in row or row["class"] is None for row in rows):
        raise DataError("is no table of objects: expected a header id,class and a line an object", file)
    crowds = {"1": True, "true": True}
    return [
        (row["id"].strip(), row["class"].strip(), crowds.get((row.get("crowd") or "").strip(), False)) for row in rows
    ]


def _more(count: int) -> str:
    return f" and {count - 1} more such values" if count > 1 else ""
