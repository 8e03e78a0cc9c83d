"""Counts by object size against a flood fill and hand-made squares."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segatlas.errors import UsageError
from segatlas.metrics import create
from segatlas.metrics.object_size import ObjectSize, size_counts
from segatlas.structures import Result, SemanticTarget


def flood_fill(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Return the 8-connected regions of a mask as lists of pixels."""
    left, regions = {tuple(p) for p in np.argwhere(mask).tolist()}, []
    while left:
        stack, region = [left.pop()], []
        while stack:
            y, x = stack.pop()
            region.append((y, x))
            for neighbour in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if neighbour in left:
                    left.remove(neighbour)
                    stack.append(neighbour)
        regions.append(region)
    return regions


def test_counts_equal_a_flood_fill() -> None:
    generator = np.random.default_rng(0)
    label = np.kron(generator.choice([0, 1, 2, 255], (9, 12)), np.ones((13, 11))).astype(np.uint8)
    prediction = np.where(generator.random(label.shape) < 0.3, 1, label).astype(np.uint8)
    prediction[label == 255] = 255
    slow = np.zeros((3, 3, 4), int)
    for index in range(3):
        for region in flood_fill(label == index):
            bucket = 0 if len(region) < 1024 else 1 if len(region) < 9216 else 2
            slow[index, bucket, :3] += (1, len(region), sum(prediction[p] == index for p in region))
        for region in flood_fill(prediction == index):
            bucket = 0 if len(region) < 1024 else 1 if len(region) < 9216 else 2
            slow[index, bucket, 3] += sum(label[p] != index for p in region)
    assert np.array_equal(size_counts(prediction, label, 3), slow)
    assert slow[:, 0, 0].sum() > 0
    assert slow[:, 1, 0].sum() > 0


def test_bounds_are_those_of_coco() -> None:
    label = np.full((200, 200), 255, np.uint8)
    label[:31, :33] = 0  # 1023 pixels: small
    label[:32, 40:72] = 0  # 1024: medium
    label[40:135, 0:97] = 0  # 9215: medium
    label[40:136, 100:196] = 0  # 9216: large
    right = np.where(label == 0, 0, 255).astype(np.uint8)
    assert size_counts(right, label, 1)[0].tolist() == [
        [1, 1023, 1023, 0],
        [2, 1024 + 9215, 1024 + 9215, 0],
        [1, 9216, 9216, 0],
    ]


def test_regions_that_touch_at_a_corner_are_one_object() -> None:
    label = np.full((8, 8), 255, np.uint8)
    label[:4, :4] = label[4:, 4:] = 1
    assert size_counts(label, label, 2)[1, 0].tolist() == [1, 32, 32, 0]


def test_the_sizes_of_a_class_add_up_to_its_confusion() -> None:
    generator = np.random.default_rng(1)
    label = np.kron(generator.choice([0, 1, 2, 255], (8, 8)), np.ones((9, 9))).astype(np.uint8)
    prediction = np.kron(generator.choice([0, 1, 2], (12, 12)), np.ones((6, 6))).astype(np.uint8)
    prediction[label == 255] = 255
    counts = size_counts(prediction, label, 3, (40, 200)).sum(1)
    for index in range(3):
        true, found = label == index, prediction == index
        assert counts[index, 1:].tolist() == [true.sum(), (true & found).sum(), (found & ~true).sum()]


def test_bounds_below_one_are_fractions_of_the_image() -> None:
    label = np.full((20, 50), 255, np.uint8)
    label[:5, :19], label[10:20, :10] = 0, 1  # 95 and 100 of 1000 pixels
    by_fraction, by_pixels = size_counts(label, label, 2, (0.1, 0.5)), size_counts(label, label, 2, (100, 500))
    assert np.array_equal(by_fraction, by_pixels)
    assert by_fraction[:, :, 0].tolist() == [[1, 0, 0], [0, 1, 0]]
    with pytest.raises(UsageError, match=r"eval.size_bounds: got 0.5, 100; expected two rising numbers"):
        ObjectSize(("a", "b"), size_bounds=(0.5, 100))


def test_iou_of_a_size_takes_false_pixels_from_predicted_regions_of_that_size() -> None:
    label, prediction = np.zeros((10, 20), np.uint8), np.zeros((10, 20), np.uint8)
    label[1:3, 1:3] = 1  # 4 pixels, found but for one
    prediction[1:3, 1:3] = 1
    prediction[1, 1] = 0
    prediction[8, 8:10] = 1  # 2 made up
    label[:, 15:], prediction[:, 14:] = 1, 1  # 50 pixels, 10 too many beside them
    metrics = create(["object_size"], ("ground", "thing"), {"size_bounds": (20, 40)})
    metrics.update(Result(class_map=prediction), SemanticTarget(label))
    scores = metrics.compute()
    thing = scores.per_class()[1]
    assert thing["iou_small"] == pytest.approx(3 / (4 + 2))
    assert math.isnan(thing["iou_medium"])
    assert thing["iou_large"] == pytest.approx(50 / 60)
    assert scores.iou_small == pytest.approx(3 / 6)
    assert scores.settings == ("medium objects from 20 pixels, large ones from 40 pixels",)


def test_an_image_of_ignored_pixels_has_no_objects() -> None:
    ignore = np.full((5, 5), 255, np.uint8)
    assert not size_counts(ignore, ignore, 3).any()
