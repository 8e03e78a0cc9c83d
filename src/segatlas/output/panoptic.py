"""Files of panoptic results: a map of segments as COCO's, its record, an image to look at; objects and classes too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segatlas import drawing
from segatlas.drawing.files import write_bytes
from segatlas.files import whole_file
from segatlas.output.instance import coco_box
from segatlas.output.instance import write_instances as write_instances
from segatlas.output.listed_objects import listed, measured
from segatlas.output.listed_objects import write_coco as write_coco
from segatlas.output.listed_objects import write_csv as write_csv
from segatlas.output.listed_objects import write_geojson as write_geojson
from segatlas.output.listed_objects import write_labelme as write_labelme
from segatlas.output.options import PixelSize, WriterOptions
from segatlas.output.semantic import draw_color as draw_color
from segatlas.output.semantic import write_color as write_color
from segatlas.output.semantic import write_mask as write_mask
from segatlas.structures import ImageResult


def write_panoptic(result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write the id of each pixel's segment as the colour R + 256 G + 65536 B, 0 = none: COCO's panoptic PNG."""
    with whole_file(path, durable=False) as temporary:  # one of many, and made again by the same command
        Image.fromarray(id_colors(result.panoptic.ids)).save(temporary, format="PNG")


def id_colors(ids: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 from ids (H, W) below 256^3."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)


def draw_overlay(result: ImageResult) -> np.ndarray:
    """Return the image with each segment tinted in its class's colour, and lines between segments."""
    return drawing.result_overlay(result, legend=False)


def write_overlay(result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write the image with each segment tinted in its class's colour, lines between segments, and a legend."""
    drawing.save_image(drawing.result_overlay(result), path)


def write_json(result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write `segments_record`."""
    text = json.dumps(record(result, options, path.stem), indent=2, ensure_ascii=False)
    write_bytes(f"{text}\n".encode(), path)


def record(result: ImageResult, options: WriterOptions, stem: str) -> dict[str, Any]:
    """Return what STEM.json holds."""
    return segments_record(result, options.model, f"{stem}_panoptic.png", options.pixel_size)


def segments_record(
    result: ImageResult, model: str, file_name: str, pixel_size: PixelSize | None = None
) -> dict[str, Any]:
    """Return what STEM.json holds: COCO's record of an image's segments, and the classes that their numbers mean.

    Args:
        result: of an image.
        model: what the user called it.
        file_name: of the PNG with the ids.
        pixel_size: how long a pixel's side is, None = not known.
    """
    segments = [
        {
            "id": one.id,
            "category_id": one.class_index,
            "name": result.classes[one.class_index],
            "isthing": int(one.is_thing),
            "iscrowd": 0,
            "score": None if one.score is None else round(one.score, 6),
            "area": one.area,
            "bbox": coco_box(one.box),
            "measures": measured(item.mask, pixel_size),
        }
        for one, item in zip(result.panoptic.segments, listed(result), strict=True)
    ]
    height, width = result.size
    return {
        "source": result.source,
        "model": model,
        "size": {"height": height, "width": width},
        "file_name": file_name,
        "segments_info": segments,
    }
