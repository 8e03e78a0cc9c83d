"""Files of instance results: a map of objects, an image to look at, a list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segatlas import drawing
from segatlas.data.formats.instances import OBJECTS_PER_CLASS
from segatlas.drawing.files import write_bytes
from segatlas.errors import DataError
from segatlas.files import whole_file
from segatlas.output.listed_objects import measured
from segatlas.output.listed_objects import write_coco as write_coco
from segatlas.output.listed_objects import write_csv as write_csv
from segatlas.output.listed_objects import write_geojson as write_geojson
from segatlas.output.listed_objects import write_labelme as write_labelme
from segatlas.output.options import PixelSize, WriterOptions
from segatlas.structures import ImageResult

MOST_CLASSES = 65
"""Below it, class * 1000 + n fits into 16 bits for every n up to 999."""


def write_instances(result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write a PNG of 16 bits, class * 1000 + n for objects and 0 elsewhere, as `shapes` and Cityscapes number them.

    Where objects overlap, the surer one is on top; of one class, the surest object is number 1.

    Raises:
        DataError: a class index or a number of objects that 16 bits do not hold.
    """
    with whole_file(path, durable=False) as temporary:  # one of many, and made again by the same command
        Image.fromarray(instance_map(result)).save(temporary, format="PNG")


def instance_map(result: ImageResult) -> np.ndarray:
    """Return (H, W) uint16, see `write_instances`."""
    drawn, counts = np.zeros(result.size, np.uint16), [0] * len(result.classes)
    numbers = []
    for one in result.instances:
        counts[one.class_index] += 1
        numbers.append(one.class_index * OBJECTS_PER_CLASS + counts[one.class_index])
        if one.class_index >= MOST_CLASSES or counts[one.class_index] >= OBJECTS_PER_CLASS:
            raise DataError(
                f"object {counts[one.class_index]} of class {one.class_index}: a map of 16 bits holds classes below "
                f"{MOST_CLASSES} and {OBJECTS_PER_CLASS - 1} objects of each; save json instead",
                result.source or None,
            )
    for one, number in reversed([*zip(result.instances, numbers, strict=True)]):
        drawn[one.mask] = number
    return drawn


def draw_overlay(result: ImageResult) -> np.ndarray:
    """Return the image with each object tinted in its class's colour and outlined."""
    return drawing.result_overlay(result, legend=False)


def write_overlay(result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write the image with each object tinted in its class's colour and outlined."""
    drawing.save_image(drawing.result_overlay(result), path)


def write_json(result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write `objects_record`."""
    text = json.dumps(record(result, options, path.stem), indent=2, ensure_ascii=False)
    write_bytes(f"{text}\n".encode(), path)


def record(result: ImageResult, options: WriterOptions, stem: str) -> dict[str, Any]:
    """Return what STEM.json holds."""
    return objects_record(result, options.model, options.pixel_size)


def objects_record(result: ImageResult, model: str, pixel_size: PixelSize | None = None) -> dict[str, Any]:
    """Return what STEM.json holds: size, and each object by falling score.

    box: top, left, bottom, right in pixels, the network's own where it gives one. bbox, segmentation: as COCO writes
    them, x, y, width and height of the box, and the mask as a compressed run-length code. measures: see
    `listed_objects.measured`.
    """
    objects = [
        {
            "index": one.class_index,
            "name": result.classes[one.class_index],
            "score": one.score,
            "box": [round(side, 3) for side in one.box],
            "pixels": one.area,
            "bbox": coco_box(one.box),
            "segmentation": one.rle.compressed(),
            "measures": measured(one.rle, pixel_size),
        }
        for one in result.instances
    ]
    height, width = result.size
    return {"source": result.source, "model": model, "size": {"height": height, "width": width}, "objects": objects}


def coco_box(box: Sequence[float]) -> list[float]:
    """Return x, y, width and height of (top, left, bottom, right)."""
    top, left, bottom, right = box
    return [round(side, 3) for side in (left, top, right - left, bottom - top)]
