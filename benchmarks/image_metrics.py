"""What an evaluation counts of one image besides the confusion matrix: boundaries, contours, objects by size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from benchmarks.material import prediction_of, street_labels
from benchmarks.rows import Call, Equality, Peer, Row
from segatlas.labels import IGNORE

SIZE, CLASSES = (360, 480), 11
Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Counts of boundary regions (K, 3), of contours (K, 4), of objects by size (K, 3, 3), see `segatlas.metrics`."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """label, prediction: (H, W) uint8, both 255 where the label is."""

    label: np.ndarray
    prediction: np.ndarray


def make_pair(small: bool) -> Pair:
    """Return a street's labels, as classes 0..10 or 255, and a plausible prediction."""
    label = cv2.resize(street_labels(), SIZE[::-1], interpolation=cv2.INTER_NEAREST)
    label = np.where(label == IGNORE, IGNORE, label % CLASSES).astype(np.uint8)
    prediction = prediction_of(label) % CLASSES
    return Pair(label=label, prediction=np.where(label == IGNORE, IGNORE, prediction).astype(np.uint8))


def ours(given: Pair) -> Call:
    """Count with the metrics themselves, as an evaluation does."""
    from segatlas.metrics import create
    from segatlas.structures import Result, SemanticTarget

    result, target = Result(class_map=given.prediction), SemanticTarget(given.label)

    def call() -> Found:
        counted = create(["boundary", "object_size"], [f"class {index}" for index in range(CLASSES)])
        counted.update(result, target)
        state = counted.state()
        return tuple(
            next(state[key] for key in state if key.endswith(name)) for name in ("regions", "contours", "sizes")
        )

    return call


def by_class(given: Pair) -> Call:
    """Do the same a class at a time with cv2, as scripts do: dilations of masks, connected components."""
    from segatlas.metrics.boundary import boundary_reach

    reach, maps = boundary_reach(SIZE, 0.02), (given.label, given.prediction)
    frame = np.ones(SIZE, bool)
    frame[reach:-reach, reach:-reach] = False

    def near(mask: np.ndarray, within: int) -> np.ndarray:
        return cv2.dilate(mask.view(np.uint8), np.ones((2 * within + 1,) * 2, np.uint8)).view(bool)

    def call() -> Found:
        regions, contours = np.zeros((CLASSES, 3), np.int64), np.zeros((CLASSES, 4), np.int64)
        sizes = np.zeros((CLASSES, 3, 3), np.int64)
        for kind in range(CLASSES):
            own = [labels == kind for labels in maps]
            other = [(labels != kind) & (labels != IGNORE) for labels in maps]
            inner = [a & (near(b, reach) | frame) for a, b in zip(own, other, strict=True)]
            line = [a & near(b, 1) for a, b in zip(own, other, strict=True)]
            regions[kind] = (inner[0] & inner[1]).sum(), inner[0].sum(), inner[1].sum()
            hits = [(line[a] & near(line[b], reach)).sum() for a, b in ((0, 1), (1, 0))]
            contours[kind] = line[0].sum(), hits[0], line[1].sum(), hits[1]
            count, objects = cv2.connectedComponents(own[0].view(np.uint8), connectivity=8)
            for number in range(1, count):
                mask = objects == number
                area = int(mask.sum())
                sizes[kind, (area >= 32 * 32) + (area >= 96 * 96)] += 1, area, int((mask & own[1]).sum())
        return regions, contours, sizes

    return call


def same(given: Pair, own: Found, other: Found) -> Equality:
    wrong = sum(int((a != b).sum()) for a, b in zip(own, other, strict=True))
    return Equality(holds=wrong == 0, text="identical counts" if wrong == 0 else f"{wrong} counts differ")


ROWS = (
    Row(
        key="boundary_and_size",
        group="confusion",
        part="boundary regions, contours and objects by size of one image",
        inputs=f"uint8 maps of {SIZE[0]} x {SIZE[1]}, {CLASSES} classes and 255",
        material=make_pair,
        ours=ours,
        peers={"a class at a time, cv2": Peer(make=by_class)},
        equal=same,
        threads=(1,),
        calls=10,
        memory=False,
        most_seconds=0.004,
    ),
)
