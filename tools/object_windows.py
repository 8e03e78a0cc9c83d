"""Objects of a large image by windows beside the same objects of its tiles alone:

    python tools/object_windows.py MODEL [--shapes FOLDER] [--side 14] [--window 256] [--overlap 0.33] [--out FOLDER]

MODEL finds objects in generated shapes. The image is one scene as large as side x side of them, with as many objects
of their sizes. With --shapes it is the `val` images of that folder side by side instead, each with a ground of its
own: there the network also sees what it never learned, borders between images. Objects that a tile's border cuts are
ignored in the truth. Printed are PQ over the things, of results tile by tile and by windows, of the same truth by the
same composition, and for windows of all objects too; how many objects there are, how many masks end along a side of a
window where the true object goes on, and how far the memory of the process grew. FOLDER gets both results drawn.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from segatlas.config.objects import ObjectRule
from segatlas.data.formats.instances import OBJECTS_PER_CLASS
from segatlas.data.shapes import draw_large_scene
from segatlas.drawing import object_overlay, save_image
from segatlas.inference import load
from segatlas.inference.segmentation import Segmentation
from segatlas.inference.sliding import make_windows
from segatlas.metrics.panoptic_quality import PanopticQuality
from segatlas.ops import window_starts
from segatlas.postprocess.composing import composed
from segatlas.structures import Instance, Result, Rle, SegmentsTarget

TILE = (128, 160)
"""(H, W) of a generated image."""

LONG = 4
"""Pixels along a line from which on an end is straight."""


def mosaic(root: Path, side: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return the tiles, all of them side by side, and the numbers of objects (H, W), 0 = none."""
    files = sorted((root / "val" / "images").glob("*.png"))[: side * side]
    if len(files) < side * side:
        raise SystemExit(f"{root}: {len(files)} val images, {side * side} wanted")
    tiles = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    maps, told = [], 0
    for file in files:
        given = np.asarray(Image.open(file.parent.parent / "instances" / file.name)).astype(np.int64)
        told += OBJECTS_PER_CLASS * 100
        maps.append(np.where(given > 0, given + told, 0))
    rows = range(0, side * side, side)
    image = np.concatenate([np.concatenate(tiles[row : row + side], axis=1) for row in rows])
    numbers = np.concatenate([np.concatenate(maps[row : row + side], axis=1) for row in rows])
    return tiles, image, numbers


def scene(side: int, tile: tuple[int, int]) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return the tiles of one large scene, the scene, and the numbers of its objects (H, W), 0 = none."""
    drawn = draw_large_scene(0, (side, side), tile)
    tiles = [
        drawn.image[row * tile[0] : (row + 1) * tile[0], column * tile[1] : (column + 1) * tile[1]]
        for row, column in np.ndindex(side, side)
    ]
    return tiles, drawn.image, drawn.instances.astype(np.int64)


def truth_of(numbers: np.ndarray, tile: tuple[int, int] | None) -> SegmentsTarget:
    """Return the objects as segments; what is no object is stuff of class 0, what a tile's border cuts is ignored."""
    numbers = numbers.copy()
    if tile is not None:
        heads, sides = ({*range(0, n, m), *range(m - 1, n, m)} for n, m in zip(numbers.shape, tile, strict=True))
        at_border = np.unique(np.concatenate([numbers[sorted(heads)].ravel(), numbers[:, sorted(sides)].ravel()]))
        numbers[np.isin(numbers, at_border[at_border > 0])] = -1
    known, ids = np.unique(numbers, return_inverse=True)
    ids = ids.reshape(numbers.shape).astype(np.int32) - int(known[0] < 0)
    known = known[known >= 0]
    classes = known % (100 * OBJECTS_PER_CLASS) // OBJECTS_PER_CLASS
    return SegmentsTarget(ids, classes, known > 0, np.zeros(len(known), bool))


def quality(objects: Sequence[Instance], truth: SegmentsTarget, classes: Sequence[str]) -> tuple[float, list[Rle]]:
    """Return PQ over things and the masks that are drawn."""
    shape = np.asarray(truth.ids).shape
    stuff = np.zeros(shape, np.int32)
    found = composed(objects, stuff, -1, ObjectRule(stuff_area=0))
    metric = PanopticQuality(classes)
    metric.update(Result(segments=found), truth)
    masks = []
    for one in found.segments:
        if one.is_thing:
            top, left, bottom, right = one.box
            masks.append(Rle.placed(found.ids[top:bottom, left:right] == one.id, shape, top, left))
    return float(metric.compute().whole["pq_things"] or 0.0), masks


def things_of(result: Segmentation) -> list[Instance]:
    """Return the objects of a result, or its segments of things, by falling score."""
    if result.objects is not None:
        return list(result.instances)
    ids, found = result.panoptic.ids, []
    for one in result.panoptic.segments:
        if one.is_thing:
            top, left, bottom, right = one.box
            mask = Rle.placed(ids[top:bottom, left:right] == one.id, (ids.shape[0], ids.shape[1]), top, left)
            score = 1.0 if one.score is None else one.score
            found.append(Instance(mask=mask, class_index=one.class_index, score=score))
    return sorted(found, key=lambda one: -one.score)


def straight_ends(masks: Sequence[Rle], truth: np.ndarray, lines: tuple[set[int], set[int]]) -> int:
    """Return how many masks end along one of the lines (rows, columns) where the true object goes on."""
    drawn = np.zeros(truth.shape, np.int32)
    for index, mask in enumerate(masks):
        top, left, bottom, right = mask.box
        drawn[top:bottom, left:right][mask.part()] = index + 1
    count = 0
    for found, ids, places in ((drawn, truth, lines[0]), (drawn.T, truth.T, lines[1])):
        for line in places:
            ends = (found[line - 1] != found[line]) & (ids[line - 1] == ids[line]) & (ids[line] > 0)
            count += int((np.bincount(np.maximum(found[line - 1], found[line])[ends]) >= LONG).sum())
    return count


def main() -> None:
    """Print one line for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--shapes", type=Path)
    parser.add_argument("--side", type=int, default=14)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--overlap", type=float, default=1 / 3)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    side = asked.side
    tiles, image, numbers = mosaic(asked.shapes, side) if asked.shapes else scene(side, TILE)
    height, width = tiles[0].shape[:2]
    truth = truth_of(numbers, (height, width))
    started, alone, before = time.perf_counter(), load(asked.model), 0
    objects = []
    for index, tile in enumerate(tiles):
        top, left = index // side * height, index % side * width
        for one in things_of(alone.predict(tile)):
            y, x, _, _ = one.rle.box
            mask = Rle.placed(one.rle.part(), numbers.shape, top + y, left + x)
            objects.append(Instance(mask=mask, class_index=one.class_index, score=one.score))
    objects.sort(key=lambda one: -one.score)
    windows = make_windows(asked.window, asked.overlap)
    lines = tuple(
        {line for start in window_starts(length, asked.window, step) for line in (start, start + asked.window)}
        - {0, length}
        for length, step in zip(numbers.shape, windows.stride, strict=True)
    )
    ids = np.asarray(truth.ids)
    count = len(np.unique(numbers)) - 1
    print(f"{count} objects on {numbers.shape[0]} x {numbers.shape[1]} pixels, {len(truth.classes) - 1} judged")
    for name in ("tiles", "windows"):
        if name == "windows":
            before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
            objects = things_of(load(asked.model, window=asked.window, overlap=asked.overlap).predict(image))
        seconds = time.perf_counter() - started
        pq, masks = quality(objects, truth, alone.card.classes)
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 if name == "windows" else 0.0
        ends = straight_ends(masks, ids, (lines[0], lines[1]))
        every = ""
        if name == "windows":
            every = f", of all objects {100 * quality(objects, truth_of(numbers, None), alone.card.classes)[0]:.2f}"
        told = f"{name:8s} PQ {100 * pq:.2f}{every}  objects {len(masks)}  straight ends {ends}  {seconds:.1f} s"
        print(f"{told}  {more:.0f} MiB more", flush=True)
        if asked.out is not None:
            asked.out.mkdir(parents=True, exist_ok=True)
            sure = [one for one in objects if one.score >= ObjectRule().things_score]
            save_image(object_overlay(image, sure, alone.card.palette), asked.out / f"{name}.png")


if __name__ == "__main__":
    main()
