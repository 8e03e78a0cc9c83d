"""Files of semantic results: masks, images to look at, areas."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segatlas import drawing
from segatlas.data.formats.masks import write_mask as write_mask_file
from segatlas.drawing.files import write_bytes
from segatlas.errors import TaskError
from segatlas.output.areas import area_rows, real_area, write_areas
from segatlas.output.options import PixelSize, WriterOptions
from segatlas.structures import ImageResult


def write_mask(result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write class indices as PNG with the palette, or the codes of another format."""
    if options.codes is None:
        write_mask_file(path, result.semantic, result.palette)
    else:
        write_mask_file(path, options.codes(result.semantic))


def draw_color(result: ImageResult) -> np.ndarray:
    """Return each pixel in its class's colour."""
    return drawing.result_colors(result)


def draw_overlay(result: ImageResult) -> np.ndarray:
    """Return the image tinted with class colours."""
    return drawing.result_overlay(result, legend=False)


def draw_boundary(result: ImageResult) -> np.ndarray:
    """Return the image with a line along every change of class."""
    if result.image is None:
        raise TaskError("boundary: the result does not hold its image, over which boundaries are drawn")
    return drawing.boundary_image(result.image, result.semantic)


def draw_confidence(result: ImageResult) -> np.ndarray:
    """Return the probability of the chosen class as a heat map."""
    if result.confidence is None:
        raise TaskError("confidence: the result holds none; predict(..., confidence=True) gives it")
    return drawing.confidence_image(result.confidence)


def write_color(result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write each pixel in its class's colour."""
    drawing.save_image(draw_color(result), path)


def write_overlay(result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write the image tinted with class colours, with a legend."""
    drawing.save_image(drawing.result_overlay(result), path)


def write_boundary(result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write the image with a line along every change of class."""
    drawing.save_image(draw_boundary(result), path)


def write_confidence(result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write the probability of the chosen class as a heat map."""
    drawing.save_image(draw_confidence(result), path)


def write_json(result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write `areas_record`."""
    text = json.dumps(record(result, options, path.stem), indent=2, ensure_ascii=False)
    write_bytes(f"{text}\n".encode(), path)


def record(result: ImageResult, options: WriterOptions, stem: str) -> dict[str, Any]:
    """Return what STEM.json holds."""
    return areas_record(result, options.model, options.pixel_size)


def write_csv(result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write the table of areas of one image."""
    write_areas(table_rows(result, options, Path(result.source).name), path, options.pixel_size)


def table_rows(result: ImageResult, options: WriterOptions, file: str) -> list[dict[str, Any]]:
    """Return what an image, called `file`, adds to the table of a folder."""
    return area_rows(result, file, options.pixel_size)


def write_table(rows: Sequence[Mapping[str, Any]], path: Path, options: WriterOptions) -> None:
    """Write the table of areas of a folder."""
    write_areas(rows, path, options.pixel_size)


def areas_record(result: ImageResult, model: str, pixel_size: PixelSize | None = None) -> dict[str, Any]:
    """Return what STEM.json holds: size, and pixels and fraction of each class that occurs, in order of index.

    With a pixel's size also the area in its unit, such as `area_m2`.
    """
    classes = [
        {
            "index": index,
            "name": result.classes[index],
            "color": list(result.palette[index]),
            "pixels": pixels,
            "fraction": round(pixels / result.semantic.size, 6),
            **real_area(pixels, pixel_size),
        }
        for index, pixels in result.class_pixels().items()
    ]
    record: dict[str, Any] = {
        "source": result.source,
        "model": model,
        "size": {"height": result.size[0], "width": result.size[1]},
        "classes": classes,
    }
    if result.confidence is not None:
        record["mean_confidence"] = round(float(result.confidence.mean()), 6)
    return record
