"""Weak labels made of whole ones, so that what weak labels teach can be measured against what whole ones teach.

    scribbles  a line or a few in every region of a class, along its middle, a few pixels wide
    points     a pixel in the middle of every region, and as many further ones in the background
    boxes      a list of boxes: of objects where the dataset has some, else of regions of all classes but the background
    labels     a list of the classes of every image
    partial    masks in which some classes, drawn anew for every image, were looked for, and a list of which

A region is what hangs together of one class; those of fewer pixels than `smallest` get no point, scribble or box. What
is drawn follows from (seed, key of the image) alone. Only train becomes weak: val and test are copied with whole masks,
with boxes also with the objects that the dataset has, for scores need them.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset, targets_of
from segatlas.data.checks.examine import available_splits
from segatlas.data.checks.object_files import write_objects
from segatlas.data.copies import check_copy, copy_image
from segatlas.data.dataset import SegmentationData
from segatlas.data.datasets.truths import INSTANCES
from segatlas.data.formats.classes import JSON_FILE, write_classes
from segatlas.data.formats.coco import numbers_of
from segatlas.data.formats.label_tables import BETWEEN_CLASSES
from segatlas.data.formats.masks import write_mask
from segatlas.data.named_background import stated_background
from segatlas.data.strokes import middle_line, middle_of
from segatlas.errors import DataError, UsageError
from segatlas.files import whole_folder
from segatlas.labels import IGNORE
from segatlas.structures import InstancesTarget

Form = Literal["scribbles", "points", "boxes", "labels", "partial"]
FORMS: tuple[Form, ...] = ("scribbles", "points", "boxes", "labels", "partial")
RECORD = "weakened.json"
MOST_NAMED = 5
LOGGER = logging.getLogger("segatlas")
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Weakening:
    """How labels are made weak.

    form: the kind. seed: what all draws follow from. background: class of everything else, which gets further points,
    no boxes, and is no class of an image; None = one that is called so, "none" = none.
    width: of scribbles, in pixels. smallest: pixels of a region that is labelled at all. fraction: of the classes of a
    set that are annotated in an image of `partial`.
    """

    form: Form
    seed: int = 0
    background: str | None = None
    width: int = 5
    smallest: int = 30
    fraction: float = 0.5

    def generator(self, key: str) -> np.random.Generator:
        """Return the random numbers of an image."""
        return np.random.default_rng([self.seed, zlib.crc32(key.encode())])


@dataclass(kw_only=True)
class _Tables:
    """Rows of the tables of train: (image, ...) each."""

    boxes: list[list[object]] = field(default_factory=list)
    classes: list[list[object]] = field(default_factory=list)


def weaken(cfg: DataConfig, out: str | Path, how: Weakening, progress: Progress | None = None) -> dict[str, int]:
    """Write a dataset with weak labels of train as a folder that `data.name=weak` reads.

    `out` appears when all of it is there.

    Returns:
        The number of images in each split, and of labels (scribbles, points, boxes, classes) in train.

    Raises:
        DataError: no train or val split, a file that cannot be read, or `out` cannot be written.
        UsageError: `out` is not empty, or lies in the dataset itself; there are no masks; no class has that name.
    """
    out = Path(out)
    check_copy(cfg, out)
    splits = {split: create_dataset(cfg, split) for split in available_splits(cfg)}
    if lost := [split for split in ("train", "val") if split not in splits]:
        raise DataError(f"has no {lost[0]}: weak labels of train need whole masks of val to be scored", cfg.root)
    classes = splits["train"].classes
    rest = stated_background(cfg, classes, how.background)
    _check_names(classes, how.form)
    objects = {
        split: create_dataset(cfg, split, target=INSTANCES)
        for split in splits
        if how.form == "boxes" and INSTANCES in targets_of(cfg, split)
    }
    total, done, labels = sum(map(len, splits.values())), 0, 0
    tables, unknown = _Tables(), list[str]()
    with whole_folder(out, durable=False) as temporary:
        for split, data in splits.items():
            for index in range(len(data)):
                key = data.key(index)
                label = data.load(index).label if data.files(index)[1] is not None else None
                if label is None and split != "test":
                    raise UsageError(f"{key} of {split} has no whole mask, of which weak labels could be made")
                truth = objects[split].truth(index) if split in objects else None
                if split == "train" and how.form in ("boxes", "labels") and truth is None and _is_unknown(label):
                    unknown.append(key)
                    continue
                name = copy_image(data, index, temporary / split / "images")
                if label is not None and split != "train":
                    write_mask(temporary / split / "masks" / f"{key}.png", label, data.palette)
                    if isinstance(truth, InstancesTarget):
                        write_objects(temporary / split / "instances", key, truth, objects[split].classes)
                elif label is not None:
                    labels += _write(temporary / split, name, label, truth, how, rest, data, tables)
                done += 1
                if progress:
                    progress(done, total)
        if not labels:
            raise DataError(f"train shows nothing of which {how.form} could be made", cfg.root)
        _write_tables(temporary / "train", how, tables)
        write_classes(temporary / JSON_FILE, classes, splits["train"].palette)
        record = {"made_of": cfg.name, "to": how.form, "seed": how.seed, "labels": labels}
        (temporary / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if unknown:
        LOGGER.warning(
            "%d images of train have no labelled pixel and are left out, for %s would say that they show nothing: %s",
            len(unknown), how.form, ", ".join(unknown[:MOST_NAMED]),
        )  # fmt: skip
    counts = {split: len(data) for split, data in splits.items()}
    return {**counts, "train": counts["train"] - len(unknown), "labels": labels}


def scribbles_of(
    label: np.ndarray, how: Weakening, generator: np.random.Generator, rest: int | None = None
) -> tuple[np.ndarray, int]:
    """Return labels (H, W) of which strokes alone are left, and how many strokes there are.

    One stroke a region, two or three in large ones; each runs along a part of a line through the middle of the region
    and stays a pixel away from its border where the region is wide enough. The background, `rest`, is drawn as others.
    """
    import cv2

    kept, count = np.full_like(label, IGNORE), 0
    for kind, inside, (top, left) in regions_of(label, how.smallest):
        strokes = 1 + int(generator.random() < _chance(inside, 0.02)) + int(generator.random() < _chance(inside, 0.08))
        eroded = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(bool)
        drawn = np.zeros(inside.shape, np.uint8)
        for _ in range(strokes):
            line = middle_line(inside, generator)
            length = max(2, math.ceil(len(line) * generator.uniform(0.5, 1.0)))
            first = int(generator.integers(0, max(len(line) - length, 0) + 1))
            points = np.ascontiguousarray(line[first : first + length, ::-1]).reshape(-1, 1, 2).astype(np.int32)
            cv2.polylines(drawn, [points], isClosed=False, color=1, thickness=how.width)
        wide = drawn.astype(bool) & inside
        if not wide.any():  # the line of a crooked region may run beside it
            wide[tuple(middle_of(inside)[0])] = True
        narrow = wide & eroded
        stroke = narrow if 2 * narrow.sum() >= wide.sum() else wide
        kept[top : top + inside.shape[0], left : left + inside.shape[1]][stroke] = kind
        count += strokes
    return kept, count


def points_of(
    label: np.ndarray, how: Weakening, generator: np.random.Generator, rest: int | None = None
) -> tuple[np.ndarray, int]:
    """Return labels (H, W) of which single pixels are left, and how many.

    They are the centre of the largest circle inside each region; the background, whose regions are large and few, has
    besides as many further pixels anywhere as there are points of other classes. rest: the class of everything else.
    """
    kept, others = np.full_like(label, IGNORE), 0
    for kind, inside, (top, left) in regions_of(label, how.smallest):
        row, column = middle_of(inside)[0]
        kept[top + row, left + column] = kind
        others += kind != rest
    places = np.flatnonzero((label == rest) & (kept == IGNORE)) if rest is not None else ()
    if rest is not None and len(places):
        chosen = generator.choice(places, min(max(others, 1), len(places)), replace=False)
        kept.reshape(-1)[chosen] = rest
    return kept, int((kept != IGNORE).sum())


def partial_of(label: np.ndarray, classes: int, how: Weakening, generator: np.random.Generator) -> tuple[
    np.ndarray, np.ndarray
]:  # fmt: skip
    """Return labels (H, W) of which some classes are left, and (K,) bool which.

    Pixels of the others have the first class that was not annotated: each of these stands for all of them.
    """
    wanted = min(max(round(how.fraction * classes), 1), classes - 1)
    annotated = np.zeros(classes, bool)
    annotated[generator.choice(classes, wanted, replace=False)] = True
    table = np.arange(256, dtype=np.uint8)
    table[np.flatnonzero(~annotated)] = np.flatnonzero(~annotated)[0]
    return table[label], annotated


def boxes_of(
    label: np.ndarray, objects: Any, how: Weakening, rest: int | None = None
) -> list[tuple[int, tuple[int, int, int, int]]]:
    """Return (class, (x0, y0, x1, y1)) of each object, or without objects of each region but those of the background.

    rest: the class of everything else; None = there is none.
    """
    if isinstance(objects, InstancesTarget):
        masks, kinds, crowd = (np.asarray(part) for part in objects[:3])
        found = [
            (int(kind), numbers_of(mask)) for mask, kind, many in zip(masks, kinds, crowd, strict=True) if not many
        ]
        return [(kind, _corners(box)) for kind, (area, box) in found if area >= how.smallest]
    boxes = []
    for kind, inside, (top, left) in regions_of(label, how.smallest):
        if kind != rest:
            boxes.append((kind, (left, top, left + inside.shape[1], top + inside.shape[0])))
    return boxes


def regions_of(label: np.ndarray, smallest: int) -> Iterator[tuple[int, np.ndarray, tuple[int, int]]]:
    """Yield (class, mask (h, w) bool in its box, (row, column) of that) of each region of `smallest` pixels or more."""
    import cv2

    for kind in np.unique(label[label != IGNORE]).tolist():
        count, numbers, facts, _ = cv2.connectedComponentsWithStats((label == kind).astype(np.uint8), connectivity=8)
        for number in range(1, count):
            left, top, width, height, area = (int(value) for value in facts[number])
            if area >= smallest:
                part = numbers[top : top + height, left : left + width]
                yield kind, part == number, (top, left)


def _write(
    folder: Path,
    name: str,
    label: np.ndarray,
    objects: Any,
    how: Weakening,
    rest: int | None,
    data: SegmentationData,
    tables: _Tables,
) -> int:
    """Write the weak labels of one image, or add their rows; return how many there are. name: below its folder."""
    key, names = name.rpartition(".")[0], data.classes
    generator = how.generator(key)
    if how.form in ("scribbles", "points"):
        draw = scribbles_of if how.form == "scribbles" else points_of
        kept, count = draw(label, how, generator, rest)
        write_mask(folder / how.form / f"{key}.png", kept, data.palette)
        return count
    if how.form == "partial":
        kept, annotated = partial_of(label, len(names), how, generator)
        write_mask(folder / "masks" / f"{key}.png", kept, data.palette)
        chosen = [names[kind] for kind in np.flatnonzero(annotated)]
        tables.classes.append([name, BETWEEN_CLASSES.join(chosen)])
        return len(chosen)
    if how.form == "boxes":
        boxes = boxes_of(label, objects, how, rest)
        tables.boxes += [[name, names[kind], *corners] for kind, corners in boxes] or [[name, "", "", "", "", ""]]
        return len(boxes)
    kinds = [kind for kind in np.unique(label[label != IGNORE]).tolist() if kind != rest]
    tables.classes.append([name, BETWEEN_CLASSES.join(names[kind] for kind in kinds)])
    return len(kinds)


def _check_names(names: Sequence[str], form: Form) -> None:
    """Raise UsageError where classes cannot be told apart in a table, or not some of them from others."""
    if form == "partial" and len(names) < 2:
        raise UsageError("partial needs two classes or more: some are annotated, others are not")
    wrong = [name for name in names if BETWEEN_CLASSES in name or name != name.strip() or not name]
    if wrong and form in ("labels", "partial", "boxes"):
        raise UsageError(
            f"class {wrong[0]!r}: a table has {BETWEEN_CLASSES!r} between names, and no spaces around them"
        )


def _is_unknown(label: np.ndarray | None) -> bool:
    return label is not None and bool((label == IGNORE).all())


def _write_tables(folder: Path, how: Weakening, tables: _Tables) -> None:
    names = {"boxes": "boxes.csv", "labels": "labels.csv", "partial": "classes_labelled.csv"}
    if how.form not in names:
        return
    rows: Sequence[Sequence[object]] = tables.boxes if how.form == "boxes" else tables.classes
    head = ["image", "class", "x0", "y0", "x1", "y1"] if how.form == "boxes" else ["image", "classes"]
    with (folder / names[how.form]).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def _chance(inside: np.ndarray, per_pixel: float) -> float:
    """Return how likely a region gets a further stroke: the larger, the likelier."""
    return min(float(inside.sum()) * per_pixel / 100, 0.9)


def _corners(box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    x, y, width, height = (int(value) for value in box)
    return x, y, x + width, y + height
