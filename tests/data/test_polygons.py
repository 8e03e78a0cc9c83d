"""Polygons give the pixels that COCO's own tools give."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fakes.shared import shared_data

from segatlas.data.formats.polygons import draw_polygon, draw_polygons


def rows(mask: np.ndarray) -> list[str]:
    return ["".join(".#"[int(value)] for value in row) for row in mask]


def test_a_rectangle_of_whole_corners_is_the_pixels_between_them():
    assert rows(draw_polygon(np.array([1, 1, 4, 1, 4, 3, 1, 3]), (4, 6))) == ["......", ".###..", ".###..", "......"]


def test_an_outline_that_turns_back_on_itself_has_a_hole():
    outer, inner = [0, 0, 6, 0, 6, 6, 0, 6, 0, 0], [2, 2, 2, 4, 4, 4, 4, 2, 2, 2]
    mask = draw_polygon(np.array([*outer, *inner]), (6, 6))
    assert not mask[2:4, 2:4].any()
    assert mask.sum() == 32


def test_parts_are_united_where_they_overlap():
    square = np.array([0, 0, 4, 0, 4, 4, 0, 4])
    assert draw_polygons([square, square + 2], (6, 6)).sum() == 16 + 16 - 4


def test_what_lies_outside_the_image_is_cut_off_and_nothing_is_left_of_a_line():
    assert draw_polygon(np.array([-9, -9, 90, -9, 90, 90, -9, 90]), (5, 7)).all()
    assert not draw_polygon(np.array([20, 20, 30, 20, 30, 30]), (5, 7)).any()
    assert not draw_polygon(np.array([1, 1, 4, 1, 1, 1]), (5, 7)).any()
    assert not draw_polygon(np.array([2, 2, 2, 2, 2, 2]), (5, 7)).any()


def test_pixels_are_those_of_cocos_tools_for_any_polygon():
    tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for number in range(400):
        height, width = (int(side) for side in rng.integers(1, 40, 2))
        corners = rng.uniform(-8, 48, (int(rng.integers(3, 9)), 2))
        corners = np.round(corners) if number % 3 == 0 else corners
        corners[1] = corners[0] if number % 5 == 0 else corners[1]
        code = tools.frPyObjects([corners.ravel().tolist()], height, width)
        assert np.array_equal(draw_polygon(corners, (height, width)), tools.decode(code)[..., 0].astype(bool))


def test_pixels_are_those_of_cocos_tools_for_every_real_polygon():
    tools = pytest.importorskip("pycocotools.mask")
    content = json.loads((shared_data("samples/coco") / "annotations/instances_train2017.json").read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    shapes = [(one["segmentation"], sizes[one["image_id"]]) for one in content["annotations"] if not one["iscrowd"]]
    assert len(shapes) == 284
    for parts, size in shapes:
        mask = tools.decode(tools.merge(tools.frPyObjects(parts, *size))).astype(bool)
        assert np.array_equal(draw_polygons([np.array(part) for part in parts], size), mask)
