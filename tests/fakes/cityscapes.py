"""A tiny Cityscapes in its true tree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from fakes.coco import measured
from fakes.images import blocks, image_of, save_codes, save_image
from PIL import Image

from segatlas.data.datasets.cityscapes import LABELS

STEMS = {
    "train": ("aachen/aachen_000000_000019", "bremen/bremen_000001_000019", "aachen/aachen_000001_000019"),
    "val": ("frankfurt/frankfurt_000000_000294",),
    "test": ("berlin/berlin_000000_000019",),
}
EVALUATED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids of train ids 0..18."""


THINGS = (24, 25, 26, 27, 28, 31, 32, 33)
"""Label ids of things."""


def write_cityscapes(
    root: Path, *, train_ids: bool = False, objects: bool = False, size: tuple[int, int] = (32, 64)
) -> Path:
    """Write images and labelIds, or labelTrainIds files instead, and instanceIds where asked; test has no masks."""
    for part, (split, stems) in enumerate(STEMS.items()):
        for number, stem in enumerate(stems):
            label_ids = blocks(number, range(34), size)
            save_image(
                root / "leftImg8bit" / split / f"{stem}_leftImg8bit.png", image_of(label_ids, number + 100 * part)
            )
            if split == "test":
                continue
            mask = root / "gtFine" / split / f"{stem}_gtFine_label{'TrainIds' if train_ids else 'Ids'}.png"
            save_codes(mask, to_train_ids(label_ids) if train_ids else label_ids)
            if objects:
                ids = np.where(np.isin(label_ids, THINGS), label_ids.astype(np.int64) * 1000 + 1, label_ids)
                Image.fromarray(ids.astype(np.uint16)).save(mask.with_name(f"{mask.name[:-12]}instanceIds.png"))
    return root


def to_train_ids(label_ids: np.ndarray) -> np.ndarray:
    """Return train ids, found one by one."""
    train_ids = np.full(label_ids.shape, 255, np.uint8)
    for train_id, label_id in enumerate(EVALUATED):
        train_ids[label_ids == label_id] = train_id
    return train_ids


def write_instance_ids(root: Path) -> Path:
    """Write a map of objects beside each mask: three numbered things, a crowd, a caravan, which is not evaluated."""
    for path in (root / "gtFine").rglob("*_labelIds.png"):
        label_ids = np.array(Image.open(path)).astype(np.uint16)
        label_ids[np.isin(label_ids, THINGS)] = 7
        places = {24001: (10, 4), 24002: (10, 20), 26000: (20, 4), 24: (20, 20), 29002: (20, 40)}
        for number, (top, left) in places.items():
            label_ids[top : top + 4, left : left + 6] = number
        Image.fromarray(label_ids).save(path.with_name(path.name.replace("labelIds", "instanceIds")))
        kinds = np.where(label_ids >= 1000, label_ids // 1000, label_ids)
        Image.fromarray(kinds.astype(np.uint8)).save(path)
    return root


def write_panoptic(root: Path, *, train_ids: tuple[str, ...] = ()) -> Path:
    """Write what the authors' script makes of the maps of objects: `cityscapes_panoptic_{split}.json` and its maps.

    Images have texts for numbers, and names that end as the maps' do. train_ids: splits whose categories it numbers by
    train ids, in files of another name.
    """
    for split in ("train", "val"):
        by_train_id = split in train_ids
        categories = [
            {
                "id": train_id if by_train_id else label_id,
                "name": name,
                "color": list(color),
                "isthing": int(label_id in THINGS),
            }
            for label_id, (name, train_id, color) in enumerate(LABELS)
            if train_id != 255
        ]
        images, annotations = [], []
        out = root / "gtFine" / f"cityscapes_panoptic_{split}{'_trainId' if by_train_id else ''}"
        out.mkdir(parents=True)
        for path in sorted((root / "gtFine" / split).rglob("*_instanceIds.png")):
            numbers = np.array(Image.open(path)).astype(np.int64)
            stem = path.name.removesuffix("_gtFine_instanceIds.png")
            colors, segments = np.zeros((*numbers.shape, 3), np.uint8), []
            for number in np.unique(numbers).tolist():
                label_id = number // 1000 if number >= 1000 else number
                if label_id not in EVALUATED:
                    continue
                colors[numbers == number] = (number % 256, number // 256, 0)
                crowd = int(label_id in THINGS and number < 1000)
                kind = EVALUATED.index(label_id) if by_train_id else label_id
                entry = {"id": number, "category_id": kind, "iscrowd": crowd}
                segments.append({**entry, **measured(numbers == number)})
            Image.fromarray(colors).save(out / f"{stem}_gtFine_panoptic.png")
            height, width = numbers.shape
            images.append({"id": stem, "width": width, "height": height, "file_name": f"{stem}_gtFine_leftImg8bit.png"})
            name = f"{stem}_gtFine_panoptic.png"
            annotations.append({"image_id": stem, "file_name": name, "segments_info": segments})
        content = {"images": images, "annotations": annotations, "categories": categories}
        out.with_suffix(".json").write_text(json.dumps(content))
    return root
