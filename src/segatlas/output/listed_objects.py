"""Files that list objects or segments one by one: COCO, LabelMe, GeoJSON, CSV, and what is measured of each.

Of a panoptic result they list its segments, things and stuff; of others its objects, by falling score. Coordinates are
pixels, x right and y down from the image's top left corner, see `structures.outlines`.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from segatlas.drawing.files import write_bytes
from segatlas.output.options import PixelSize, WriterOptions
from segatlas.structures import ImageResult, Rle
from segatlas.structures.outlines import Polygon, joined_ring, measures_of, polygons_of

COORDINATES = (
    "pixels, x right and y down from the image's top left corner; the pixel in row r and column c covers x from c to "
    "c + 1 and y from r to r + 1"
)
"""What coordinates mean, as the files say it."""


class Listed(NamedTuple):
    """One object or segment. number: from 1; of a segment its id. score: 0..1, None = the network gives none."""

    number: int
    class_index: int
    name: str
    is_thing: bool
    score: float | None
    mask: Rle


NOTHING = Rle.of(np.zeros((1, 1), bool))
COLUMNS = (
    *("image", "id", "class", "class_index", "thing", "score"),
    *("left_px", "top_px", "right_px", "bottom_px", "centroid_x_px", "centroid_y_px"),
)
"""Columns of a list of objects before those of what is measured."""


def listed(result: ImageResult) -> list[Listed]:
    """Return the segments of a result by their ids, or its objects by falling score."""
    names = result.classes
    if result.segments is None:
        return [
            Listed(index + 1, one.class_index, names[one.class_index], True, one.score, one.rle)
            for index, one in enumerate(result.instances)
        ]
    return [
        Listed(one.id, one.class_index, names[one.class_index], one.is_thing, one.score, result.panoptic.mask_of(one))
        for one in result.panoptic.segments
    ]


def measured(mask: Rle, pixel_size: PixelSize | None) -> dict[str, Any]:
    """Return what is measured of a mask: lengths in pixels, and with a pixel's size in its unit too.

    area_px: pixels. perimeter_px: outlines with their corners cut, holes included. centroid_px: x and y.
    longest_axis_px: the largest distance of two corners of its pixels.
    """
    found = measures_of(mask)
    lengths = {"perimeter": found.perimeter, "longest_axis": found.longest_axis}
    record: dict[str, Any] = {
        "area_px": found.area,
        **{f"{name}_px": round(value, 3) for name, value in lengths.items()},
        "centroid_px": [round(value, 3) for value in found.centroid],
    }
    if pixel_size is not None:
        side, unit = pixel_size.length, pixel_size.unit
        record[f"area_{unit}2"] = _six_digits(found.area * side * side)
        record |= {f"{name}_{unit}": _six_digits(value * side) for name, value in lengths.items()}
    return record


def write_coco(result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write a whole file of COCO's objects for one image, masks as compressed run-length codes; the image has id 1.

    Categories are numbered as the classes are, from 0. Boxes are those of the masks.
    """
    height, width = result.size
    objects = []
    for one in listed(result):
        top, left, bottom, right = one.mask.box
        record = {
            "id": one.number,
            "image_id": 1,
            "category_id": one.class_index,
            "segmentation": one.mask.compressed(),
            "bbox": [left, top, right - left, bottom - top],
            "area": one.mask.area,
            "iscrowd": 0,
        }
        objects.append(record if one.score is None else {**record, "score": one.score})
    _write_json(
        {
            "info": {"description": f"predicted by {options.model}"},
            "images": [{"id": 1, "file_name": _file_name(result), "height": height, "width": width}],
            "categories": [{"id": index, "name": name} for index, name in enumerate(result.classes)],
            "annotations": objects,
        },
        path,
    )


def write_labelme(result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write a file of LabelMe: a polygon for each part of an object; parts of one object share a group.

    Its polygons have no holes: the outline goes into each hole and comes back on the same line.
    """
    height, width = result.size
    shapes = []
    for one in listed(result):
        parts = polygons_of(one.mask)
        shapes += [
            {
                "label": one.name,
                "points": joined_ring(part).tolist(),
                "group_id": one.number if len(parts) > 1 else None,
                "description": "" if one.score is None else f"score {one.score:.4f}",
                "shape_type": "polygon",
                "flags": {},
            }
            for part in parts
        ]
    _write_json(
        {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": _file_name(result),
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        },
        path,
    )


def write_geojson(result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write a feature for each object, with holes and parts, in pixel coordinates: the image lies nowhere on the earth.

    Outer rings go round clockwise as the image is seen, holes the other way.
    """
    features = []
    for one in listed(result):
        parts = [_closed(part) for part in polygons_of(one.mask)]
        single = len(parts) == 1
        geometry = {"type": "Polygon" if single else "MultiPolygon", "coordinates": parts[0] if single else parts}
        properties = {
            "class": one.name,
            "class_index": one.class_index,
            "thing": one.is_thing,
            "score": None if one.score is None else round(one.score, 6),
            **measured(one.mask, options.pixel_size),
        }
        features.append(
            {"type": "Feature", "id": one.number, "geometry": geometry if parts else None, "properties": properties}
        )
    height, width = result.size
    record = {
        "type": "FeatureCollection",
        "coordinates_are": COORDINATES,
        "image": {"file_name": _file_name(result), "height": height, "width": width},
        "model": options.model,
        "features": features,
    }
    _write_json(record, path)


def write_csv(result: ImageResult, path: Path, options: WriterOptions) -> None:
    """Write a line for each object: what it is, its box and centroid in pixels, and what is measured of it."""
    rows = []
    for one in listed(result):
        top, left, bottom, right = one.mask.box
        measures = measured(one.mask, options.pixel_size)
        x, y = measures.pop("centroid_px")
        rows.append(
            {
                "image": _file_name(result),
                "id": one.number,
                "class": one.name,
                "class_index": one.class_index,
                "thing": int(one.is_thing),
                "score": "" if one.score is None else round(one.score, 6),
                "left_px": left,
                "top_px": top,
                "right_px": right,
                "bottom_px": bottom,
                "centroid_x_px": x,
                "centroid_y_px": y,
                **measures,
            }
        )
    text = io.StringIO()
    of_measures = (name for name in measured(NOTHING, options.pixel_size) if name != "centroid_px")
    fields = [*COLUMNS, *of_measures]
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(text.getvalue().encode(), path)


def _closed(part: Polygon) -> list[list[list[int]]]:
    """Return a polygon's rings as GeoJSON has them: each ends where it begins."""
    return [[*ring.tolist(), ring[0].tolist()] for ring in (part.outer, *part.holes)]


def _file_name(result: ImageResult) -> str:
    return Path(result.source).name


def _six_digits(value: float) -> float:
    return float(f"{value:.6g}")


def _write_json(record: dict[str, Any], path: Path) -> None:
    write_bytes(f"{json.dumps(record, ensure_ascii=False)}\n".encode(), path)
