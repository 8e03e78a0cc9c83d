"""Files of semantic results: masks, images to look at, areas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from segatlas import drawing
from segatlas.data.formats.masks import write_mask as write_mask_file
from segatlas.drawing.files import write_bytes
from segatlas.inference import Segmentation
from segatlas.output.options import WriterOptions


def write_mask(result: Segmentation, path: Path, options: WriterOptions) -> None:
    """Write class indices as PNG with the palette, or the codes of another format."""
    if options.codes is None:
        write_mask_file(path, result.semantic, result.palette)
    else:
        write_mask_file(path, options.codes(result.semantic))


def draw_color(result: Segmentation) -> np.ndarray:
    """Return each pixel in its class's colour."""
    return result.mask_image()


def draw_overlay(result: Segmentation) -> np.ndarray:
    """Return the image tinted with class colours."""
    return result.overlay(legend=False)


def draw_boundary(result: Segmentation) -> np.ndarray:
    """Return the image with a line along every change of class."""
    assert result.image is not None, "a Predictor keeps the image"
    return drawing.boundary_image(result.image, result.semantic)


def draw_confidence(result: Segmentation) -> np.ndarray:
    """Return the probability of the chosen class as a heat map."""
    assert result.confidence is not None, "it was asked for"
    return drawing.confidence_image(result.confidence)


def write_color(result: Segmentation, path: Path, options: WriterOptions) -> None:
    """Write each pixel in its class's colour."""
    drawing.save_image(draw_color(result), path)


def write_overlay(result: Segmentation, path: Path, options: WriterOptions) -> None:
    """Write the image tinted with class colours, with a legend."""
    drawing.save_image(result.overlay(), path)


def write_boundary(result: Segmentation, path: Path, options: WriterOptions) -> None:
    """Write the image with a line along every change of class."""
    drawing.save_image(draw_boundary(result), path)


def write_confidence(result: Segmentation, path: Path, options: WriterOptions) -> None:
    """Write the probability of the chosen class as a heat map, where it was asked for."""
    if result.confidence is not None:
        drawing.save_image(draw_confidence(result), path)


def write_json(result: Segmentation, path: Path, options: WriterOptions) -> None:
    """Write `areas_record`."""
    text = json.dumps(areas_record(result, options.model), indent=2, ensure_ascii=False)
    write_bytes(f"{text}\n".encode(), path)


def areas_record(result: Segmentation, model: str) -> dict[str, Any]:
    """Return what STEM.json holds: size, and pixels and fraction of each class that occurs, in order of index."""
    index, pixels = np.unique(result.semantic, return_counts=True)
    classes = [
        {
            "index": int(i),
            "name": result.classes[int(i)],
            "color": list(result.palette[int(i)]),
            "pixels": int(n),
            "fraction": round(int(n) / result.semantic.size, 6),
        }
        for i, n in zip(index, pixels, strict=True)
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
