"""A tiny ADE20K in either of its layouts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from fakes.coco import measured
from fakes.images import blocks, image_of, save_codes, save_image
from PIL import Image

from segatlas.data.datasets.ade20k import CLASSES, THINGS
from segatlas.structures.rle import Rle

STEMS = {
    "training": ("ADE_train_00000001", "ADE_train_00000002", "ADE_train_00000003"),
    "validation": ("ADE_val_00000001", "ADE_val_00000002"),
}
OBJECTS = {1: 2978, 2: 312, 3: 2420, 15: 783, 150: 954}
"""Class 1..150 -> the number of one of its objects in the full annotation; 15, door, has two."""

OTHER_OBJECT = 7


def write_ade20k(root: Path, *, full: bool = False, size: tuple[int, int] = (40, 50)) -> Path:
    """Write the challenge tree (codes 0..150), or the full one (colours; images below folders of scenes)."""
    for part, (split, stems) in enumerate(STEMS.items()):
        for number, stem in enumerate(stems):
            if full:
                folder = root / "images" / split / "a" / "abbey"
                objects = blocks(number, (*OBJECTS.values(), 774, OTHER_OBJECT), size)
                save_image(folder / f"{stem}.jpg", image_of(objects, number + 100 * part))
                Image.fromarray(colors_of(objects)).save(folder / f"{stem}_seg.png")
                Image.fromarray(colors_of(objects)).save(folder / f"{stem}_parts_1.png")
            else:
                codes = blocks(number, range(151), size)
                save_image(root / "images" / split / f"{stem}.jpg", image_of(codes, number + 100 * part))
                save_codes(root / "annotations" / split / f"{stem}.png", codes)
    return root


def colors_of(objects: np.ndarray) -> np.ndarray:
    """Return the colours of object numbers; blue is the number of the instance, and red's last digit means nothing."""
    instances = np.arange(objects.size, dtype=np.uint8).reshape(objects.shape)
    return np.stack([objects // 256 * 10 + 3, objects % 256, instances], axis=-1).astype(np.uint8)


def write_track(root: Path) -> Path:
    """Write the maps of the instance track: R the class 1..100 among the things, G the number of the object."""
    for mask in [*root.rglob("annotations/*/*.png")]:
        codes = np.array(Image.open(mask))
        colors = np.zeros((*codes.shape, 3), np.uint8)
        colors[2:5, 2:6] = (4, 1, 0)  # the fourth thing: person
        colors[2:5, 8:11] = (4, 2, 0)
        colors[20:26, 8:20] = (100, 3, 0)
        place = mask.parent.parent.parent / "annotations_instance" / mask.parent.name / mask.name
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colors).save(place)
    return root


def write_lists(root: Path) -> Path:
    """Write what Mask2Former's scripts make of masks and track: a file of objects and a panoptic one, by split.

    Images have texts for numbers, categories are 0..149 in both, and only things are those of objects. The track's own
    folder is put aside.
    """
    kinds = [kind for kind, is_thing in enumerate(THINGS) if is_thing]
    categories = [{"id": kind, "name": name, "isthing": int(THINGS[kind])} for kind, name in enumerate(CLASSES)]
    for split, folder in (("train", "training"), ("val", "validation")):
        images, objects, annotations = [], [], []
        out = root / f"ade20k_panoptic_{split}"
        out.mkdir(parents=True)
        for path in sorted((root / "annotations" / folder).iterdir()):
            codes = np.array(Image.open(path)).astype(np.int64) - 1
            colors = np.array(Image.open(root / "annotations_instance" / folder / path.name)).astype(np.int64)
            ids, segments = np.zeros(codes.shape, np.int64), []
            for kind in np.unique(codes).tolist():
                if kind >= 0 and not THINGS[kind]:
                    ids[codes == kind] = kind + 1000
            for number in np.unique(colors[..., 1])[1:].tolist():
                inside = colors[..., 1] == number
                kind = kinds[int(colors[inside][0, 0]) - 1]
                ids[inside] = 70000 + 256 * kind + number
                entry = {"id": len(objects) + 1, "image_id": path.stem, "category_id": kind, "iscrowd": 0}
                objects.append({**entry, "segmentation": Rle.of(inside).compressed(), **measured(inside)})
            for number in np.unique(ids)[1:].tolist():
                kind = (number - 70000) // 256 if number >= 70000 else number - 1000
                segments.append({"id": number, "category_id": kind, "iscrowd": 0, **measured(ids == number)})
            Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)).save(
                out / path.name
            )
            height, width = ids.shape
            images.append({"id": path.stem, "file_name": f"{path.stem}.jpg", "width": width, "height": height})
            annotations.append({"image_id": path.stem, "file_name": path.name, "segments_info": segments})
        for kind, content in (("instance", objects), ("panoptic", annotations)):
            listed = [one for one in categories if kind == "panoptic" or one["isthing"]]
            record = {"images": images, "annotations": content, "categories": listed}
            (root / f"ade20k_{kind}_{split}.json").write_text(json.dumps(record))
    (root / "annotations_instance").rename(root / "put_aside")
    return root
