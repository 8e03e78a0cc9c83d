"""Boundaries and contours against loops over every pixel, and against erosion as Cheng et al. publish it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from segatlas.metrics.boundary import (
    boundary_counts,
    boundary_reach,
    boundary_region,
    contour_counts,
    near_another_class,
    within_reach,
)

IGNORE = 255


def random_map(seed: int, size: tuple[int, int] = (13, 17), classes: int = 4, ignore: float = 0.2) -> np.ndarray:
    """Blobs instead of noise, so that some pixels lie far from every contour."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, classes, ((size[0] + 3) // 4, (size[1] + 3) // 4)).astype(np.uint8)
    labels = np.kron(small, np.ones((4, 4), np.uint8))[: size[0], : size[1]].copy()
    labels[generator.random(size) < ignore / 4] = IGNORE
    return labels


def slow_near(labels: np.ndarray, reach: int) -> np.ndarray:
    height, width = labels.shape
    near = np.zeros(labels.shape, bool)
    for y in range(height):
        for x in range(width):
            window = labels[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
            others = (window != labels[y, x]) & (window != IGNORE)
            near[y, x] = labels[y, x] != IGNORE and others.any()
    return near


def slow_boundary(labels: np.ndarray, width: int) -> np.ndarray:
    near = slow_near(labels, width)
    for y, x in np.ndindex(*labels.shape):
        to_frame = min(y, x, labels.shape[0] - 1 - y, labels.shape[1] - 1 - x) + 1
        near[y, x] |= labels[y, x] != IGNORE and to_frame <= width
    return near


def slow_contour_counts(prediction: np.ndarray, label: np.ndarray, classes: int, reach: int) -> np.ndarray:
    counts = np.zeros((classes, 4), int)
    for index in range(classes):
        true = np.argwhere(slow_near(label, 1) & (label == index))
        predicted = np.argwhere(slow_near(prediction, 1) & (prediction == index))
        near = [[np.abs(p - q).max() <= reach for q in predicted] for p in true]
        counts[index] = (
            len(true),
            sum(any(row) for row in near),
            len(predicted),
            sum(any(column) for column in zip(*near, strict=True)),
        )
    return counts


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("reach", [1, 2, 5, 40])
def test_one_shot_neighbourhoods_equal_a_loop_over_pixels(seed: int, reach: int) -> None:
    labels = random_map(seed)
    assert np.array_equal(near_another_class(labels, reach), slow_near(labels, reach))
    assert np.array_equal(boundary_region(labels, reach), slow_boundary(labels, reach))


@pytest.mark.parametrize("width", [1, 2, 4])
def test_without_ignore_the_boundary_is_mask_minus_eroded_mask(width: int) -> None:
    labels = random_map(3, size=(40, 52), ignore=0)
    found = boundary_region(labels, width)
    for index in range(4):
        mask = cv2.copyMakeBorder((labels == index).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=width)
        assert np.array_equal(found & (labels == index), (mask - eroded)[1:-1, 1:-1].astype(bool))


@pytest.mark.parametrize("seed", range(4))
def test_contour_matches_equal_a_loop_over_all_pairs_of_pixels(seed: int) -> None:
    label, prediction = random_map(seed), random_map(seed + 100, ignore=0)
    prediction[label == IGNORE] = IGNORE
    for reach in (1, 3):
        slow = slow_contour_counts(prediction, label, 4, reach)
        assert np.array_equal(contour_counts(prediction, label, 4, reach), slow)


def test_a_square_has_the_boundary_one_counts_by_hand() -> None:
    label = np.zeros((12, 12), np.uint8)
    label[3:9, 3:9] = 1
    prediction = np.zeros((12, 12), np.uint8)
    prediction[3:9, 4:10] = 1  # the same square, one pixel to the right
    counts = boundary_counts(prediction, label, 2, width=1)
    # A 6 x 6 square has a ring of 20 pixels; two rings shifted by one have 5 + 5 pixels, at top and bottom.
    assert counts[1].tolist() == [10, 20, 20]
    # Ground: 44 pixels at the frame and the ring of 28 around the square, the frame and most of both rings shared.
    assert counts[0, 1:].tolist() == [44 + 28, 44 + 28]


def test_a_border_against_ignore_is_no_boundary() -> None:
    label = np.zeros((20, 20), np.uint8)
    label[:, 10:] = IGNORE
    assert not near_another_class(label, 3).any()
    assert not boundary_region(label, 3)[3:-3].any(axis=0)[3:].any()


def test_width_is_a_fraction_of_the_diagonal_and_at_least_one() -> None:
    assert boundary_reach((300, 400), 0.02) == 10
    assert boundary_reach((360, 480), 0.02) == 12
    assert boundary_reach((1, 1), 0.02) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2)])
def test_images_smaller_than_the_boundary_are_all_boundary(size: tuple[int, int]) -> None:
    assert boundary_region(np.zeros(size, np.uint8), 5).all()


@pytest.mark.parametrize("classes", [3, 12, 30, 90])
def test_contours_of_any_number_of_classes_are_matched_as_the_loop_does(classes: int) -> None:
    label = random_map(5, (26, 33), classes)
    prediction = np.where(label == IGNORE, IGNORE, np.roll(random_map(5, (26, 33), classes, ignore=0), 2, 1))
    expected = slow_contour_counts(prediction, label, classes, 3)
    assert np.array_equal(contour_counts(prediction.astype(np.uint8), label, classes, 3), expected)
    assert expected[:, 1].sum() > 0


def test_bits_within_reach_are_those_of_the_window_around() -> None:
    bits = np.random.default_rng(0).choice([0, 0, 0, 0, 1, 2, 4], (11, 14)).astype(np.uint16)
    for reach in (1, 2, 5, 20):
        found = within_reach(bits, reach)
        for y, x in np.ndindex(*bits.shape):
            window = bits[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
            assert found[y, x] == np.bitwise_or.reduce(window, axis=None)
