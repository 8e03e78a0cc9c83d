"""The header of a safetensors file, checked before the file is read: sizes, places, names given twice."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from segatlas.checkpoint.json_text import parse_object
from segatlas.errors import WeightsError
from segatlas.printable import printable, shortened

MOST_HEADER_BYTES = 1 << 25
"""Bytes of a header at most; a tensor takes about a hundred."""

_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "C64": 64, "F16": 16, "BF16": 16, "I16": 16}
_BITS |= {"U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4}


def check_header(path: Path) -> None:
    """Raise WeightsError where the header is no JSON object, too long, or its tensors are not what the file holds."""
    total = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > total - 8:
            raise WeightsError(
                f"{printable(path)}: truncated or damaged safetensors file (its header has {length:,} bytes)"
            )
        if length > MOST_HEADER_BYTES:
            raise WeightsError(
                f"{printable(path)}: refused, its header has {length:,} bytes (at most {MOST_HEADER_BYTES:,})"
            )
        text = file.read(length)
    header = parse_object(text, where=f"{printable(path)}: its header")
    try:
        _check_places(header, total - 8 - length)
    except ValueError as error:
        raise WeightsError(f"{printable(path)}: truncated or damaged safetensors file ({error})") from None


def _check_places(header: dict[str, Any], size: int) -> None:
    """Raise ValueError unless the tensors lie one behind the other and fill the file."""
    places = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, dict):
            raise ValueError(f"{shortened(name)}: no entry of a tensor")
        bits, shape, place = _BITS.get(str(entry.get("dtype"))), _sizes(entry, "shape"), _sizes(entry, "data_offsets")
        if bits is None:
            raise ValueError(f"{shortened(name)}: the type {shortened(entry.get('dtype'))} is not known")
        if shape is None or place is None or len(place) != 2:
            raise ValueError(f"{shortened(name)}: shape or place are no whole numbers")
        if math.prod(shape) * bits != (place[1] - place[0]) * 8:
            raise ValueError(f"{shortened(name)}: {place[1] - place[0]:,} bytes for a tensor of shape {shape}")
        places.append((place[0], place[1], name))
    end = 0
    for first, last, name in sorted(places):
        if first != end:
            raise ValueError(f"{shortened(name)}: begins at {first:,}, but what is before it ends at {end:,}")
        end = last
    if end != size:
        raise ValueError(f"its tensors end at {end:,}, the file holds {size:,} bytes of them")


def _sizes(entry: dict[str, Any], key: str) -> list[int] | None:
    """Return a list of whole numbers, None where it is none."""
    values = entry.get(key)
    if not isinstance(values, list) or len(values) > 32:
        return None
    return values if all(type(value) is int and 0 <= value < 1 << 62 for value in values) else None
