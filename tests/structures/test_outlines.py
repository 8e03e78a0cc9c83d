"""Outlines of awkward masks give the same mask back by two rules of drawing; lengths are those of slow forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segatlas.data.formats.polygons import draw_polygon
from segatlas.structures import Rle
from segatlas.structures.outlines import joined_ring, measures_of, polygons_of


def drawn(text: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in line] for line in text.split()])


AWKWARD = {
    "one pixel": "#",
    "whole image": "### ### ###",
    "a bridge of one pixel": "##...## ####### ##...##",
    "diagonal pixels": "#..# .##. .##. #..#",
    "a chain of diagonal pixels": "#.... .#... ..#.. ...#. ....#",
    "a hole": "#### #..# #..# ####",
    "a hole in a part in a hole": "####### #.....# #.###.# #.#.#.# #.###.# #.....# #######",
    "two holes that touch at a corner": "##### #.### ##.## #####",
    "a hole that touches the outside at a corner": "###.. #.#.. ##.## #####",
    "open at the border": "#.#.# #.#.# #####",
    "parts at all borders": ".#... #...# ..#.. #...# ...#.",
    "a comb": "#.#.#.# ####### #.#.#.#",
    "nothing": "... ...",
}


def masks() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    noise = {f"noise {part}": draw.random((23, 31)) < part for part in (0.2, 0.5, 0.8)}
    y, x = np.mgrid[:40, :50]
    return {name: drawn(text) for name, text in AWKWARD.items()} | noise | {"disc": (y - 20) ** 2 + (x - 22) ** 2 < 300}


each = pytest.mark.parametrize("mask", masks().values(), ids=masks().keys())


def slowly_filled(rings: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Return the pixels whose middle has an odd number of sides to its left, by all rings together."""
    found = np.zeros(size, bool)
    for row in range(size[0]):
        for column in range(size[1]):
            crossings = 0
            for ring in rings:
                for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
                    if (y0 <= row + 0.5) != (y1 <= row + 0.5):
                        crossings += x0 + (row + 0.5 - y0) / (y1 - y0) * (x1 - x0) < column + 0.5
            found[row, column] = crossings % 2 == 1
    return found


@each
def test_polygons_with_holes_give_the_mask_back(mask):
    polygons = polygons_of(Rle.of(mask))
    together = np.zeros(mask.shape, int)
    for one in polygons:
        part = slowly_filled([one.outer, *one.holes], mask.shape)
        assert part.any()
        together += part
    assert np.array_equal(together, mask.astype(int))  # no pixel lies in two


@each
def test_rings_that_go_into_the_holes_give_the_mask_back_by_coco_s_rule(mask):
    together = np.zeros(mask.shape, int)
    for one in polygons_of(Rle.of(mask)):
        together += draw_polygon(joined_ring(one), mask.shape)
    assert np.array_equal(together, mask.astype(int))


def test_parts_and_holes_are_counted_as_they_are_seen():
    counts = {
        name: [len(one.holes) for one in polygons_of(Rle.of(mask))] for name, mask in masks().items() if name in AWKWARD
    }
    assert counts["a hole in a part in a hole"] == [1, 1]
    assert counts["a chain of diagonal pixels"] == [0] * 5
    assert counts["two holes that touch at a corner"] == [1]
    assert counts["a hole that touches the outside at a corner"] == [0]
    assert counts["nothing"] == []


def test_outer_rings_go_round_clockwise_and_holes_the_other_way():
    (one,) = polygons_of(Rle.of(drawn(AWKWARD["a hole"])))
    assert one.outer.tolist() == [[0, 0], [4, 0], [4, 4], [0, 4]]
    x, y = one.holes[0].T
    assert sorted(one.holes[0].tolist()) == [[1, 1], [1, 3], [3, 1], [3, 3]]
    assert np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) < 0


@each
def test_measures_are_those_of_slow_forms(mask):
    found = measures_of(Rle.of(mask))
    places = np.argwhere(mask)
    assert found.area == len(places)
    if not len(places):
        assert found == (0, 0.0, (0.0, 0.0), 0.0)
        return
    assert found.centroid == pytest.approx((places[:, 1].mean() + 0.5, places[:, 0].mean() + 0.5))
    corners = np.unique(np.concatenate([places + step for step in ((0, 0), (0, 1), (1, 0), (1, 1))]), axis=0)
    apart = ((corners[:, None] - corners[None]) ** 2).sum(axis=2).max()
    assert found.longest_axis == pytest.approx(math.sqrt(apart))


def test_a_perimeter_cuts_corners():
    assert measures_of(Rle.of(np.ones((10, 20), bool))).perimeter == pytest.approx(56 + 4 * math.sqrt(0.5))
    disc = measures_of(Rle.of(masks()["disc"]))
    radius = math.sqrt(disc.area / math.pi)
    assert disc.perimeter == pytest.approx(2 * math.pi * radius, rel=0.07)
    ring = measures_of(Rle.of(drawn(AWKWARD["a hole"])))
    assert ring.perimeter == pytest.approx((12 + 4) + 8 * math.sqrt(0.5))  # 16 + 8 sides, at 8 corners
