"""Read JSON that somebody else wrote: bounded in size, each key once, and every fault a clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segatlas.errors import WeightsError
from segatlas.printable import printable, shortened

MOST_BYTES = 1 << 25
"""Bytes of a JSON file at most."""


class _TwiceError(ValueError):
    """A key that stands twice in one object."""


def read_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        WeightsError: no such file, too large, not JSON in UTF-8, keys given twice, or no object in it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise WeightsError(f"{printable(path)}: no such file") from None
    except OSError as error:
        raise WeightsError(f"{printable(path)}: cannot be read ({error.strerror})") from error
    if len(data) > MOST_BYTES:
        raise WeightsError(f"{printable(path)}: refused, it has more than {MOST_BYTES:,} bytes")
    return parse_object(data, where=printable(path))


def parse_object(data: bytes, *, where: str) -> dict[str, Any]:
    """Return the object that JSON bytes hold; errors as `read_object`."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    except _TwiceError as error:
        raise WeightsError(f"{where}: {error}") from None
    except RecursionError:
        raise WeightsError(f"{where}: not a JSON file (nested too deeply)") from None
    except ValueError as error:  # not UTF-8, not JSON, or a number of thousands of digits
        raise WeightsError(f"{where}: not a JSON file ({error})") from None
    if not isinstance(value, dict):
        raise WeightsError(f"{where}: holds a {type(value).__name__}, expected an object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _TwiceError(f"the key {shortened(twice)!r} is given twice")
    return made
