"""Counts by object size against a flood fill and hand-made squares."""

from __future__ import annotations

import numpy as np

from segatlas.metrics.object_size import size_counts


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
    slow = np.zeros((3, 3, 3), int)
    for index in range(3):
        for region in flood_fill(label == index):
            bucket = 0 if len(region) < 1024 else 1 if len(region) < 9216 else 2
            slow[index, bucket] += (1, len(region), sum(prediction[p] == index for p in region))
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
        [1, 1023, 1023],
        [2, 1024 + 9215, 1024 + 9215],
        [1, 9216, 9216],
    ]


def test_regions_that_touch_at_a_corner_are_one_object() -> None:
    label = np.full((8, 8), 255, np.uint8)
    label[:4, :4] = label[4:, 4:] = 1
    assert size_counts(label, label, 2)[1, 0].tolist() == [1, 32, 32]


def test_an_image_of_ignored_pixels_has_no_objects() -> None:
    ignore = np.full((5, 5), 255, np.uint8)
    assert not size_counts(ignore, ignore, 3).any()
