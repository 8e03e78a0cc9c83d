"""The table of areas: what each class covers of an image, for one image or for all of a folder in one file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from segatlas.drawing.files import write_bytes
from segatlas.output.options import PixelSize
from segatlas.structures import ImageResult

COLUMNS = ("file", "class", "class_index", "pixels", "fraction")
"""Columns of the table before the area in the unit of a pixel's size."""


def area_rows(result: ImageResult, file: str, pixel_size: PixelSize | None = None) -> list[dict[str, Any]]:
    """Return a row for each class of the model, also where it covers nothing: means over images are right then.

    Args:
        result: with a class map.
        file: what the table calls the image.
        pixel_size: how long a pixel's side is, None = not known.
    """
    found, total = result.class_pixels(), result.semantic.size
    return [
        {
            "file": file,
            "class": name,
            "class_index": index,
            "pixels": found.get(index, 0),
            "fraction": round(found.get(index, 0) / total, 6),
            **real_area(found.get(index, 0), pixel_size),
        }
        for index, name in enumerate(result.classes)
    ]


def real_area(pixels: int, pixel_size: PixelSize | None) -> dict[str, float]:
    """Return the area under its name, such as `area_m2`, to six digits; nothing where a pixel's size is not known."""
    if pixel_size is None:
        return {}
    return {f"area_{pixel_size.unit}2": float(f"{pixels * pixel_size.length**2:.6g}")}


def write_areas(rows: Iterable[Mapping[str, Any]], path: Path, pixel_size: PixelSize | None = None) -> None:
    """Write rows of `area_rows` with their heading; the file appears only when it is complete."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [*COLUMNS, *real_area(0, pixel_size)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(text.getvalue().encode(), path)
