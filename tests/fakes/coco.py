"""A tiny COCO in its true tree: objects as polygons and run-length codes, panoptic maps, an image without objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fakes.images import blocks, image_of, save_image
from PIL import Image

from segatlas.structures.rle import Rle

CATEGORIES = (
    {"id": 3, "name": "cat", "isthing": 1, "color": [220, 20, 60], "supercategory": "animal"},
    {"id": 17, "name": "dog", "isthing": 1, "color": [0, 80, 100], "supercategory": "animal"},
    {"id": 90, "name": "boat", "isthing": 1, "color": [0, 0, 142], "supercategory": "vehicle"},
    {"id": 105, "name": "grass", "isthing": 0, "color": [107, 142, 35], "supercategory": "ground"},
    {"id": 180, "name": "sky", "isthing": 0, "color": [70, 130, 180], "supercategory": "ground"},
)
"""Numbers with gaps, as COCO's own."""

COUNTS = {"train": 4, "val": 2}


def scene(number: int, size: tuple[int, int]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Return segment numbers (H, W) and a table: two grounds and, but in every fourth, three objects, one a crowd."""
    height, width = size
    ids = np.where(np.arange(height)[:, None] < height // 2, 70001, 70002) * np.ones((1, width), np.int64)
    table = [{"id": 70001, "category_id": 180, "iscrowd": 0}, {"id": 70002, "category_id": 105, "iscrowd": 0}]
    if number % 4 != 3:
        shift = number % 3
        ids[2 : 2 + height // 3, 3 + shift : 3 + shift + width // 4] = 300
        ids[height // 2 : height // 2 + 5, width // 2 : width // 2 + 9] = 66051
        ids[height - 6 : height - 2, 2 + shift : 12] = 9
        table += [
            {"id": 300, "category_id": 3, "iscrowd": 0},
            {"id": 66051, "category_id": 90, "iscrowd": 0},
            {"id": 9, "category_id": 17, "iscrowd": 1},
        ]
    ids[0, 0] = 0
    return ids, [{**entry, **measured(ids == entry["id"])} for entry in table]


def measured(mask: np.ndarray) -> dict[str, Any]:
    """Return area and box as COCO writes them, counted pixel by pixel."""
    rows, columns = np.nonzero(mask)
    left, top = int(columns.min()), int(rows.min())
    box = [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1]
    return {"area": int(mask.sum()), "bbox": box}


def as_object(mask: np.ndarray, entry: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return an object: a rectangle as a polygon, others as run-length codes, by turns as text and as a list."""
    left, top, width, height = entry["bbox"]
    if width * height == entry["area"] and not entry["iscrowd"]:
        corners = [left, top, left + width, top, left + width, top + height, left, top + height]
        shape: Any = [[float(value) for value in corners]]
    else:
        shape = Rle.of(mask).record() if number % 2 else Rle.of(mask).compressed()
    return {**entry, "segmentation": shape}


def write_coco(
    root: Path,
    *,
    counts: Mapping[str, int] = COUNTS,
    size: tuple[int, int] = (32, 48),
    objects: bool = True,
    maps: bool = True,
    year: str = "2017",
) -> Path:
    """Write images, files of objects and panoptic files."""
    for split, count in counts.items():
        images, listed, panoptic = [], [], []
        for index in range(count):
            number = index + 100 * list(counts).index(split)
            ids, table = scene(number, size)
            file = f"{number:012d}.jpg"
            save_image(root / f"{split}{year}" / file, image_of(blocks(number, range(4), size) + ids % 7, number))
            image = {"id": 5000 + number, "file_name": file, "height": size[0], "width": size[1]}
            images.append(image)
            things = [entry for entry in table if entry["id"] < 70000]
            listed += [
                {**as_object(ids == entry["id"], entry, number), "id": number * 10 + place, "image_id": image["id"]}
                for place, entry in enumerate(things)
            ]
            if maps:
                png = root / "annotations" / f"panoptic_{split}{year}" / f"{number:012d}.png"
                png.parent.mkdir(parents=True, exist_ok=True)
                colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
                Image.fromarray(colors.astype(np.uint8)).save(png)
                panoptic.append({"image_id": image["id"], "file_name": png.name, "segments_info": table})
        folder = root / "annotations"
        folder.mkdir(parents=True, exist_ok=True)
        things_only = [entry for entry in CATEGORIES if entry["isthing"]]
        files = {}
        if objects:
            files["instances"] = {"images": images, "annotations": listed, "categories": things_only}
        if maps:
            files["panoptic"] = {"images": images, "annotations": panoptic, "categories": list(CATEGORIES)}
        for kind, content in files.items():
            (folder / f"{kind}_{split}{year}.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def change(path: Path, edit: Any) -> None:
    """Change an annotation file: `edit` gets its content."""
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(json.dumps(content), encoding="utf-8")
