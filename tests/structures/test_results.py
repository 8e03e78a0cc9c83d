"""Results as plain data: what they give, what they refuse, equality and pickling."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from segatlas.errors import TaskError
from segatlas.structures import IGNORE, ImageResult, Instance, Panoptic, Result, Rle, Segment

MASK = np.zeros((4, 6), bool)
MASK[1:3, 2:6] = True
OBJECT = Instance(mask=MASK, class_index=1, score=0.75)
SEGMENTS = Panoptic(
    ids=MASK.astype(np.int32),
    segments=(Segment(id=1, class_index=1, is_thing=True, score=0.75, area=8, box=(1, 2, 3, 6)),),
)
WHOLE = Result(
    class_map=MASK.astype(np.uint8),
    confidence=np.full((4, 6), np.nan, np.float32),
    objects=(OBJECT,),
    segments=SEGMENTS,
)


def test_an_instance_knows_its_box_and_area():
    assert (OBJECT.box, OBJECT.area) == ((1, 2, 3, 6), 8)
    empty = Instance(mask=np.zeros((4, 6), bool), class_index=0, score=0.5)
    assert (empty.box, empty.area) == ((0, 0, 0, 0), 0)


def test_an_instance_keeps_runs_and_gives_a_bitmap_whichever_it_was_made_of():
    again = Instance(mask=Rle.of(MASK), class_index=1, score=0.75)
    assert again == OBJECT
    assert np.array_equal(again.mask, MASK)
    assert np.array_equal(again.bitmap(), MASK)
    assert again.rle == OBJECT.rle
    assert again.label == 1
    assert not any(isinstance(value, np.ndarray) for value in vars(OBJECT).values())


def test_the_own_box_of_a_network_is_kept_beside_the_mask():
    own = replace(OBJECT, box=(0.5, 2.25, 3.0, 6.5))
    assert own.box == (0.5, 2.25, 3.0, 6.5)
    assert own.area == 8
    assert replace(own, score=0.5).box == own.box
    assert own != OBJECT


def test_a_result_gives_what_it_holds():
    assert WHOLE.semantic is WHOLE.class_map
    assert WHOLE.instances == (OBJECT,)
    assert WHOLE.panoptic is SEGMENTS
    assert WHOLE.given == ("semantic", "instances", "panoptic")


@pytest.mark.parametrize("name", ["semantic", "instances", "panoptic"])
def test_asking_for_what_a_result_does_not_hold_names_what_it_holds(name):
    field = {"semantic": "class_map", "instances": "objects", "panoptic": "segments"}[name]
    others = [other for other in WHOLE.given if other != name]
    with pytest.raises(TaskError, match=f"gives no .*; it can give: {', '.join(others)}$"):
        getattr(replace(WHOLE, **{field: None}), name)
    with pytest.raises(TaskError, match="it can give: nothing"):
        getattr(Result(), name)


def test_results_are_equal_when_all_that_they_hold_is():
    copy = pickle.loads(pickle.dumps(WHOLE))
    assert copy == WHOLE
    assert copy.objects is not WHOLE.objects
    assert Result() == Result()


@pytest.mark.parametrize(
    "change",
    [
        {"class_map": np.zeros((4, 6), np.uint8)},
        {"class_map": MASK.astype(np.int32)},
        {"class_map": None},
        {"confidence": np.zeros((4, 6), np.float32)},
        {"objects": ()},
        {"objects": (replace(OBJECT, score=0.5),)},
        {"objects": (replace(OBJECT, mask=~MASK),)},
        {"segments": Panoptic(ids=MASK.astype(np.int32), segments=())},
    ],
)
def test_results_that_hold_something_else_are_not_equal(change):
    assert replace(WHOLE, **change) != WHOLE
    assert WHOLE != "a result"


def named(result, **changes):
    usual = {"size": (4, 6), "classes": ("ground", "car"), "palette": ((0, 0, 0), (9, 9, 9)), "source": "a.png"}
    return ImageResult(**vars(result), **{**usual, **changes})


def ring(size=6):
    mask = np.zeros((size, size), bool)
    mask[1:5, 1:5] = True
    mask[2:4, 2:4] = False
    return mask


def test_areas_are_pixels_by_the_name_of_the_class():
    assert named(Result(class_map=MASK.astype(np.uint8))).areas() == {"ground": 16, "car": 8}
    assert named(WHOLE).areas() == {"ground": 16, "car": 8}
    assert named(Result(class_map=np.full((4, 6), IGNORE, np.uint8))).areas() == {}
    assert named(Result(class_map=MASK.astype(np.uint8)), classes=("car", "car")).areas() == {"car": 24}


def test_a_pixel_of_two_objects_of_a_class_counts_once_for_it():
    other = Instance(mask=np.roll(MASK, 1, axis=0), class_index=1, score=0.5)
    third = Instance(mask=MASK, class_index=0, score=0.4)
    assert named(Result(objects=(OBJECT, other, third))).areas() == {"ground": 8, "car": 12}
    with pytest.raises(TaskError, match="it can give: nothing"):
        named(Result()).areas()


def test_counting_goes_by_pieces(monkeypatch):
    monkeypatch.setattr("segatlas.structures.results.PIXELS_AT_ONCE", 5)
    assert named(Result(class_map=MASK.astype(np.int32))).class_pixels() == {0: 16, 1: 8}


def test_polygons_of_a_class_keep_holes_and_their_pixels_are_its_area():
    result = named(Result(class_map=ring().astype(np.uint8)), size=(6, 6))
    found = result.polygons()
    assert [len(part.holes) for part in found["car"]] == [1]
    assert {name: sum(part.area for part in parts) for name, parts in found.items()} == result.areas()
    (part,) = Instance(mask=ring(), class_index=1, score=0.5).polygons()
    assert (part.area, part.outer.tolist()) == (12, found["car"][0].outer.tolist())


def test_things_that_touch_have_polygons_of_their_own():
    ids = np.array([[1, 1, 2, 2], [1, 1, 2, 2]], np.int32)
    both = tuple(
        Segment(id=i, class_index=1, is_thing=True, score=None, area=4, box=(0, 2 * i - 2, 2, 2 * i)) for i in (1, 2)
    )
    segments = Panoptic(ids=ids, segments=both)
    whole = named(Result(class_map=np.ones((2, 4), np.uint8), segments=segments), size=(2, 4))
    assert [part.area for part in whole.polygons()["car"]] == [4, 4]
    objects = tuple(Instance(mask=segments.mask_of(one), class_index=1, score=0.5) for one in both)
    assert [part.area for part in named(Result(objects=objects), size=(2, 4)).polygons()["car"]] == [4, 4]
    assert [part.area for part in replace(whole, segments=None).polygons()["car"]] == [8]


def test_a_result_is_left_without_its_image():
    result = named(WHOLE, image=np.zeros((4, 6, 3), np.uint8))
    assert result.without_image() == replace(result, image=None)
    assert repr(SEGMENTS) == "Panoptic(1 segments, 4x6)"
