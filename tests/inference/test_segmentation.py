"""The class that users hold."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

import segatlas
from segatlas import drawing
from segatlas.errors import TaskError

LABELS = np.repeat(np.array([[0, 1, 1, 2]], np.uint8), 3, axis=0)
RESULT = segatlas.Segmentation(
    size=(3, 4),
    classes=("sky", "road", "car"),
    palette=((0, 0, 255), (90, 90, 90), (255, 0, 0)),
    class_map=LABELS,
    image=np.full((3, 4, 3), 200, np.uint8),
)


def test_areas_are_pixels_by_the_name_of_the_class():
    assert RESULT.areas() == {"sky": 3, "road": 6, "car": 3}


def test_images_of_a_result_are_those_of_drawing():
    assert np.array_equal(RESULT.mask_image(), drawing.color_mask(LABELS, RESULT.palette))
    assert np.array_equal(RESULT.overlay(), drawing.overlay(RESULT.image, LABELS, RESULT.palette, RESULT.classes))


def test_an_overlay_without_the_image_is_refused():
    with pytest.raises(TaskError, match="does not hold its image"):
        replace(RESULT, image=None).overlay()


def test_a_result_survives_pickling_and_equals_itself():
    assert pickle.loads(pickle.dumps(RESULT)) == RESULT
    assert replace(RESULT, class_map=LABELS[::-1, ::-1].copy()) != RESULT


def test_instances_of_a_semantic_model_are_refused_naming_what_it_gives():
    with pytest.raises(TaskError, match="this model gives no instances; it can give: semantic"):
        _ = RESULT.instances
