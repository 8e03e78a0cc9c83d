"""Write objects and segments of any readable dataset in one of the forms that are read: COCO's two, or maps of objects.

    coco        OUT/{split}/KEY.*   OUT/annotations/instances_{split}.json, run-length codes
    panoptic    OUT/{split}/KEY.*   OUT/annotations/panoptic_{split}.json and panoptic_{split}/KEY.png
    instances   OUT/{split}/images/KEY.*   OUT/{split}/instances/KEY.png with KEY.json, or KEY/n_CLASS.png where objects
                overlap   OUT/classes.json

Masks, classes, crowds and the order of objects stay as they are. Images are copied. An image without the truth that is
written is left out, for a list without its objects would say that it has none; so is a split of such images.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset, targets_of
from segatlas.data.checks.examine import available_splits
from segatlas.data.checks.file_listing import list_dataset_files
from segatlas.data.checks.object_files import write_objects
from segatlas.data.checks.repair import check_new_folder
from segatlas.data.checks.repairable import lost_entries
from segatlas.data.checks.scan import Progress
from segatlas.data.dataset import SegmentationData
from segatlas.data.datasets import dataset_class
from segatlas.data.datasets.truths import INSTANCES, SEGMENTS
from segatlas.data.formats.classes import JSON_FILE, write_classes
from segatlas.data.formats.coco import numbers_of
from segatlas.data.formats.panoptic import write_map
from segatlas.data.options import checked
from segatlas.errors import DataError
from segatlas.files import whole_folder
from segatlas.structures import InstancesTarget, SegmentsTarget
from segatlas.structures.rle import Rle

Form = Literal["coco", "panoptic", "instances"]
TARGET_OF: dict[str, str] = {"coco": INSTANCES, "panoptic": SEGMENTS, "instances": INSTANCES}
"""Form -> the truth that it holds."""


@dataclass(kw_only=True)
class Lists:
    """The lists of an annotation file that grows."""

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)


def to_objects(cfg: DataConfig, out: str | Path, form: Form, progress: Progress | None = None) -> dict[str, int]:
    """Write a dataset in a form (see the head of this file); `out` appears when all of it is there.

    Returns:
        The number of images in each split that was written.

    Raises:
        DataError: a file that cannot be read, entries of it that belong to no class or image, no image with that truth,
            or `out` cannot be written.
        UsageError: `out` is not empty, or lies in the dataset itself; the dataset has no such truth.
    """
    out = Path(out)
    check_new_folder(out, cfg.root)
    known = checked(cfg)
    if lost := lost_entries(list_dataset_files(known, dataset_class(cfg.name).prepare(known))):
        raise DataError(lost, cfg.root)
    there = available_splits(cfg)
    given = [split for split in there if TARGET_OF[form] in targets_of(cfg, split)]
    splits = {split: create_dataset(cfg, split, target=TARGET_OF[form]) for split in given or there}
    total, done, counts = sum(map(len, splits.values())), 0, {}
    with whole_folder(out, durable=False) as temporary:
        for split, data in splits.items():
            lists = Lists()
            for index in range(len(data)):
                if data.truth_file(index) is not None:
                    _write_sample(temporary, form, split, data, index, lists)
                done += 1
                if progress:
                    progress(done, total)
            if not lists.images:
                continue
            counts[split] = len(lists.images)
            if form != "instances":
                _write_lists(temporary, form, split, data, lists)
        if not counts:
            raise DataError(f"no image has a {TARGET_OF[form]}, which --to {form} writes", cfg.root)
        if form == "instances":
            first = next(iter(splits.values()))
            write_classes(temporary / JSON_FILE, first.classes, first.palette)
    return counts


def _write_sample(root: Path, form: Form, split: str, data: SegmentationData, index: int, lists: Lists) -> None:
    key, (image, _) = data.key(index), data.files(index)
    target = data.load(index).target  # image and truth are of one size, or this raises
    folder = root / split / "images" if form == "instances" else root / split
    copy = folder / f"{key}{image.suffix}"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image, copy)
    number = len(lists.images) + 1
    assert isinstance(target, InstancesTarget | SegmentsTarget)
    height, width = np.asarray(target[0]).shape[-2:]
    lists.images.append({"id": number, "file_name": f"{key}{image.suffix}", "height": height, "width": width})
    if isinstance(target, SegmentsTarget):
        write_map(root / "annotations" / f"panoptic_{split}" / f"{key}.png", np.asarray(target.ids) + 1)
        lists.annotations.append({"image_id": number, "file_name": f"{key}.png", "segments_info": _segments(target)})
    elif form == "coco":
        lists.annotations += _objects(target, number, len(lists.annotations))
    else:
        write_objects(root / split / "instances", key, target, data.classes)


def _objects(target: InstancesTarget, image: int, before: int) -> list[dict[str, Any]]:
    masks, kinds, crowd = (np.asarray(part) for part in target[:3])
    entries = []
    for row, mask in enumerate(masks):
        area, box = numbers_of(mask)
        entries.append({
            "id": before + row + 1,
            "image_id": image,
            "category_id": int(kinds[row]) + 1,
            "iscrowd": int(crowd[row]),
            "area": area,
            "bbox": list(box),
            "segmentation": Rle.of(mask).compressed(),
        })  # fmt: skip
    return entries


def _segments(target: SegmentsTarget) -> list[dict[str, Any]]:
    ids, kinds, _, crowd = (np.asarray(part) for part in target)
    entries = []
    for row in range(len(kinds)):
        area, box = numbers_of(ids == row)
        if area:
            entry = {"id": row + 1, "category_id": int(kinds[row]) + 1, "iscrowd": int(crowd[row])}
            entries.append({**entry, "area": area, "bbox": list(box)})
    return entries


def _write_lists(root: Path, form: Form, split: str, data: SegmentationData, lists: Lists) -> None:
    """Write the annotation file of a split; its categories are all classes, numbered from 1 in their order."""
    things = data.things or (True,) * len(data.classes)
    categories: list[dict[str, Any]] = []
    for index, (name, color) in enumerate(zip(data.classes, data.palette, strict=True)):
        is_thing = {"isthing": int(things[index])} if TARGET_OF[form] == SEGMENTS else {}
        categories.append({"id": index + 1, "name": name, "color": list(color), **is_thing})
    content = {"images": lists.images, "annotations": lists.annotations, "categories": categories}
    kind = "panoptic" if TARGET_OF[form] == SEGMENTS else "instances"
    path = root / "annotations" / f"{kind}_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
