"""COCO's files with one fault each, as `data check` calls it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fakes.coco import change
from PIL import Image

from segatlas.structures.rle import Rle

SIZE = (32, 48)
OBJECTS, MAPS = "annotations/instances_train2017.json", "annotations/panoptic_train2017.json"


def again(one: dict[str, Any]) -> dict[str, Any]:
    return {**one, "id": 999}


def add(**fields: Any) -> Callable[[Path], None]:
    return lambda root: change(
        root / OBJECTS, lambda content: content["annotations"].append({**one_object(), **fields})
    )


def one_object() -> dict[str, Any]:
    corners = [[2.0, 2.0, 8.0, 2.0, 8.0, 9.0, 2.0, 9.0]]
    return {"id": 77, "image_id": 5000, "category_id": 3, "iscrowd": 0, "segmentation": corners, "area": 42,
            "bbox": [2, 2, 6, 7]}  # fmt: skip


def set_key(file: str, key: str, value: Any) -> Callable[[Path], None]:
    def edit(content: dict[str, Any]) -> None:
        entry = content["annotations"][0]
        (entry["segments_info"][2] if "segments_info" in entry else entry)[key] = value

    return lambda root: change(root / file, edit)


def new_pixel(root: Path) -> None:
    png = next((root / "annotations/panoptic_train2017").iterdir())
    colors = np.array(Image.open(png))
    colors[5, 40] = (1, 2, 3)
    Image.fromarray(colors).save(png)


def cut(file: str) -> Callable[[Path], None]:
    return lambda root: (root / file).write_text((root / file).read_text()[:-40])


def smaller(root: Path) -> None:
    png = next((root / "annotations/panoptic_train2017").iterdir())
    Image.open(png).crop((0, 0, 40, 32)).save(png)


EMPTY = {"size": list(SIZE), "counts": [SIZE[0] * SIZE[1]]}
FAULTS: dict[str, tuple[Callable[[Path], Any], str, str, str]] = {
    "an id twice": (set_key(OBJECTS, "id", 1), "duplicate_id", "error", "annotation 1 is listed 2 times"),
    "another area": (set_key(MAPS, "area", 4), "area_mismatch", "warning", "its area is stated as 4"),
    "another box": (add(bbox=[2, 2, 26, 7]), "area_mismatch", "warning", "its box is stated as 2, 2, 26, 7"),
    "a polygon outside": (
        add(segmentation=[[40.0, 2.0, 60.0, 2.0, 60.0, 9.0]]),
        "polygon_outside",
        "warning",
        "annotation 77 leaves the image by 12.0 pixels",
    ),
    "a segment in the map only": (
        new_pixel, "unlisted_segment", "error", "segment 197121 of the map is not in its table",
    ),
    "a segment in the table only": (
        lambda root: change(root / MAPS, lambda c: c["annotations"][0]["segments_info"].append(
            {"id": 5, "category_id": 3, "iscrowd": 0})),
        "unlisted_segment",
        "error",
        "segment 5 of its table in the JSON file has no pixel",
    ),
    "an unknown class": (add(category_id=4), "unknown_class", "error", "annotation 77 is of category 4"),
    "an unknown class of a segment": (
        set_key(MAPS, "category_id", 4), "unknown_class", "error", "300 is of category 4",
    ),
    "an image that is not listed": (add(image_id=1), "unknown_image", "error", "annotation 77 is of image 1, which"),
    "an object without a pixel": (add(segmentation=EMPTY), "empty_object", "warning", "annotation 77 has no pixel"),
    "another size": (smaller, "size_mismatch", "error", "40 x 32, image 48 x 32"),
    "an object twice": (add(), "repeated_object", "warning", "the class of annotation 77"),
    "a file that is cut off": (cut(OBJECTS), "annotation_file", "error", "is not JSON, is it cut off?"),
    "a box that is not finite": (add(bbox=[float("nan"), 2, 6, 7]), "bad_annotation", "error", "is [NaN, 2, 6, 7]"),
    "a code of another size": (
        add(segmentation=Rle.of(np.ones((9, 9), bool)).record()),
        "bad_annotation",
        "error",
        "its run-length code is of 9 x 9 pixels (height x width), its image of 32 x 48",
    ),
    "a code that does not fill its size": (
        add(segmentation={"size": list(SIZE), "counts": [3, 4]}), "bad_annotation", "error", "7 pixels for a size of",
    ),
    "a polygon of two corners": (add(segmentation=[[1, 2, 3, 4]]), "bad_annotation", "error", "fewer than three"),
    "no segmentation": (add(segmentation=[]), "bad_annotation", "error", "it has no segmentation"),
    "a missing image": (
        lambda root: next((root / "train2017").iterdir()).unlink(), "list", "error", "which are not there as images",
    ),
    "no categories": (
        lambda root: change(root / OBJECTS, lambda c: c["categories"].clear()), "annotation_file", "error", "category",
    ),
}  # fmt: skip
"""Name -> what breaks a set of `write_coco`, kind and severity of the finding, and a part of what is told."""
