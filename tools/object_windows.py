"""Objects of a large image by windows beside the same objects of its tiles alone:

    python tools/object_windows.py MODEL SHAPES [--side 13] [--window 256] [--overlap 0.33] [--out FOLDER]

MODEL finds objects in the generated shapes of the folder SHAPES, whose `val` images are put side by side to one mosaic.
Objects that a tile's border cuts are ignored in the truth: in the mosaic they end where no object ends that the model
learned. Printed are PQ over the things of the mosaic, of results tile by tile and by windows, of the same truth by the
same composition; how many objects there are, how many masks end along a side of a window where the true object goes on,
and how far the memory of the process grew. FOLDER gets the mosaic with both results drawn.
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
from segatlas.drawing import object_overlay, save_image
from segatlas.inference import load
from segatlas.inference.sliding import make_windows
from segatlas.metrics.panoptic_quality import PanopticQuality
from segatlas.ops import window_starts
from segatlas.postprocess.composing import composed
from segatlas.structures import Instance, Result, Rle, SegmentsTarget

LONG = 4
"""Pixels along a line from which on an end is straight."""


def mosaic(root: Path, side: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, int]:
    """Return the tiles, all of them side by side, the numbers of objects (H, W), 0 = none, and the length of a row."""
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
    return tiles, image, numbers, side


def truth_of(numbers: np.ndarray, tile: tuple[int, int]) -> SegmentsTarget:
    """Return the objects as segments; what is no object is stuff of class 0, what a tile's border cuts is ignored."""
    numbers = numbers.copy()
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
    parser.add_argument("shapes", type=Path)
    parser.add_argument("--side", type=int, default=13)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--overlap", type=float, default=1 / 3)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    tiles, image, numbers, side = mosaic(asked.shapes, asked.side)
    height, width = tiles[0].shape[:2]
    truth = truth_of(numbers, (height, width))
    started, alone, before = time.perf_counter(), load(asked.model), 0
    objects = []
    for index, tile in enumerate(tiles):
        top, left = index // side * height, index % side * width
        for one in alone.predict(tile).instances:
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
            objects = list(load(asked.model, window=asked.window, overlap=asked.overlap).predict(image).instances)
        seconds = time.perf_counter() - started
        pq, masks = quality(objects, truth, alone.card.classes)
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 if name == "windows" else 0.0
        ends = straight_ends(masks, ids, (lines[0], lines[1]))
        told = f"{name:8s} PQ {100 * pq:.2f}  objects {len(masks)}  straight ends {ends}  {seconds:.1f} s"
        print(f"{told}  {more:.0f} MiB more", flush=True)
        if asked.out is not None:
            asked.out.mkdir(parents=True, exist_ok=True)
            sure = [one for one in objects if one.score >= ObjectRule().things_score]
            save_image(object_overlay(image, sure, alone.card.palette), asked.out / f"{name}.png")


if __name__ == "__main__":
    main()
