"""Masks of boxes by GrabCut (Rother et al. 2004): the colours inside and outside of a box say what in it is the object.

A set of boxes becomes a folder of masks, with which any network trains: pixels of which GrabCut is not sure are 255.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.checks.examine import available_splits
from segatlas.data.copies import check_copy, copy_image, label_to_copy
from segatlas.data.datasets.truths import INSTANCES
from segatlas.data.formats.classes import JSON_FILE, write_classes
from segatlas.data.formats.masks import write_mask
from segatlas.data.named_background import stated_background
from segatlas.errors import DataError, UsageError
from segatlas.files import whole_folder
from segatlas.labels import IGNORE
from segatlas.structures import InstancesTarget

ROUNDS = 5
LEAST, MOST = 0.2, 0.95
"""Fractions of a box: a mask that covers less or more is not believed, and the middle of the box is taken."""

MIDDLE = 0.6
"""Fraction of the sides of a box that is the object where GrabCut is not believed; what is around it is 255."""

MARGIN = 0.1
"""Fraction of the sides by which a box grows; what lies farther out is background for certain."""

RING = 1
"""Pixels to each side of a mask's border inside its box that are 255."""

RECORD = "grabcut.json"
Corners = tuple[int, int, int, int]
Progress = Callable[[int, int], None]


def masks_of_boxes(
    cfg: DataConfig, out: str | Path, *, background: str | None = None, progress: Progress | None = None
) -> dict[str, int]:
    """Write a dataset of boxes as a folder of images and masks: those of train by GrabCut, others as they are.

    Args:
        cfg: the data, whose train split has boxes (or other objects, of which the boxes are taken).
        out: the folder; it appears when all of it is there.
        background: class of what lies outside all boxes; default one that is called so; "none": 255 is there.
        progress: called with (images done, images in all).

    Returns:
        The number of images in each split, and of boxes where GrabCut was not believed.

    Raises:
        DataError: no train split, or a file that cannot be read.
        UsageError: the dataset has no objects; no class has that name; `out` is not empty.
    """
    out = Path(out)
    check_copy(cfg, out)
    there = available_splits(cfg)
    if "train" not in there:
        raise DataError("has no train split", cfg.root)
    train = create_dataset(cfg, "train", target=INSTANCES)
    others = {split: create_dataset(cfg, split) for split in there if split != "train"}
    rest = stated_background(cfg, train.classes, background)
    total, done, doubted = len(train) + sum(map(len, others.values())), 0, 0
    with whole_folder(out, durable=False) as temporary:
        for split, data in {"train": train, **others}.items():
            for index in range(len(data)):
                key = data.key(index)
                copy_image(data, index, temporary / split / "images")
                label = None
                if split == "train":
                    sample = data.load(index)
                    if not isinstance(sample.target, InstancesTarget):
                        raise UsageError(f"{key} has no boxes")
                    label, count = label_of_objects(sample.image, sample.target, rest)
                    doubted += count
                else:
                    label = label_to_copy(data, index)
                if label is not None:
                    write_mask(temporary / split / "masks" / f"{key}.png", label, data.palette)
                done += 1
                if progress:
                    progress(done, total)
        write_classes(temporary / JSON_FILE, train.classes, train.palette)
        (temporary / RECORD).write_text(json.dumps({"boxes_not_believed": doubted}) + "\n", encoding="utf-8")
    return {"train": len(train), **{split: len(data) for split, data in others.items()}, "not believed": doubted}


def label_of_objects(image: np.ndarray, objects: InstancesTarget, rest: int | None) -> tuple[np.ndarray, int]:
    """Return labels (H, W) uint8 of the boxes of objects, and how many masks were not believed.

    What several objects cover that were not told apart is 255 but for other objects; objects without a pixel have no
    box. image and rest: as of `label_of_boxes`.
    """
    masks, kinds, crowd = (np.asarray(part) for part in objects[:3])
    whole = [row for row in range(len(masks)) if not crowd[row] and masks[row].any()]
    return label_of_boxes(
        image, [(int(kinds[row]), corners_of(masks[row])) for row in whole], rest, masks[crowd.astype(bool)].any(axis=0)
    )


def label_of_boxes(
    image: np.ndarray, boxes: Sequence[tuple[int, Corners]], rest: int | None, unknown: np.ndarray | None = None
) -> tuple[np.ndarray, int]:
    """Return labels (H, W) uint8 of (class, x0 y0 x1 y1) boxes, and how many masks were not believed.

    Of boxes that overlap the smaller one counts. Inside a box what is not the object is the background, around the
    object's border it is 255.

    Args:
        image: (H, W, C) uint8, of which three channels are looked at.
        boxes: in whole pixels, the last row and column left out.
        rest: the class of everything else; None = outside the boxes nothing is known.
        unknown: (H, W) bool, where outside the boxes nothing is known, either.
    """
    label = np.full(image.shape[:2], IGNORE if rest is None else rest, np.uint8)
    if unknown is not None:
        label[unknown] = IGNORE
    doubted = 0
    for kind, corners in sorted(boxes, key=lambda one: -_area(one[1])):
        inside, sure = grab_object(image, corners)
        doubted += not sure
        x0, y0, x1, y1 = corners
        part = label[y0:y1, x0:x1]
        part[inside == 1] = kind
        part[inside == IGNORE] = IGNORE
    return label, doubted


def grab_object(image: np.ndarray, corners: Corners) -> tuple[np.ndarray, bool]:
    """Return what of a box is its object, (h, w) uint8: 1, 0, or 255 where it is not known; and if GrabCut said so."""
    import cv2

    x0, y0, x1, y1 = corners
    width, height = x1 - x0, y1 - y0
    # Some background has to be seen; but not all of a large image.
    across, down = max(round(width / 2), 8), max(round(height / 2), 8)
    left, top = max(x0 - across, 0), max(y0 - down, 0)
    right, bottom = min(x1 + across, image.shape[1]), min(y1 + down, image.shape[0])
    seen = _three_channels(image[top:bottom, left:right])
    state = np.full(seen.shape[:2], cv2.GC_BGD, np.uint8)
    grown_x, grown_y = round(MARGIN * width), round(MARGIN * height)
    state[max(y0 - top - grown_y, 0) : y1 - top + grown_y, max(x0 - left - grown_x, 0) : x1 - left + grown_x] = (
        cv2.GC_PR_BGD
    )
    box = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    state[box] = cv2.GC_PR_FGD
    if width * height >= 16 and (state != cv2.GC_PR_FGD).any():
        cv2.setRNGSeed(0)  # its clusters begin at random
        cv2.grabCut(seen, state, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)
        found = ((state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD))[box].astype(np.uint8)
        if LEAST <= found.mean() <= MOST:
            kernel = np.ones((2 * RING + 1,) * 2, np.uint8)
            border = cv2.dilate(found, kernel) != cv2.erode(found, kernel)
            found[border] = IGNORE
            return found, True
    middle = np.full((height, width), IGNORE, np.uint8)
    cut_y, cut_x = (round(side * (1 - MIDDLE) / 2) for side in (height, width))
    middle[cut_y : max(height - cut_y, cut_y + 1), cut_x : max(width - cut_x, cut_x + 1)] = 1
    return middle, False


def corners_of(mask: np.ndarray) -> Corners:
    """Return x0, y0, x1, y1 of a mask (H, W) bool, the last row and column left out."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _three_channels(image: np.ndarray) -> np.ndarray:
    """Return (h, w, 3) uint8 of an image of any channels and depth."""
    if image.dtype != np.uint8:
        lowest, highest = float(image.min()), float(image.max())
        image = ((image - lowest) * (255 / max(highest - lowest, 1e-9))).astype(np.uint8)
    if image.shape[2] < 3:
        image = np.repeat(image[..., :1], 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def _area(corners: Corners) -> int:
    return (corners[2] - corners[0]) * (corners[3] - corners[1])
