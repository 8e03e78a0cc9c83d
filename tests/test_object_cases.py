"""The objects of a report: found best and worst, missed, made up, in a scene made by hand."""

from __future__ import annotations

import json

import numpy as np

from segatlas.drawing.object_crops import FEWEST, FOUND, TRUE, object_row, part_around
from segatlas.evaluation.object_cases import KEPT, KINDS, ObjectCases
from segatlas.structures import Instance, InstancesTarget, Result, SegmentsTarget

CLASSES = ("car", "cow")
SIZE = (60, 80)


def block(top, left, height, width):
    mask = np.zeros(SIZE, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def scene():
    """Return a car found exactly, a cow found by 0.6, one taken for a cow, a crowd with a car on it, a cow made up."""
    true = [block(0, 0, 10, 10), block(20, 0, 10, 10), block(40, 0, 20, 20), block(0, 50, 30, 30)]
    kinds, crowd = np.array([0, 1, 0, 0]), np.array([False, False, False, True])
    found = [
        (block(0, 0, 10, 10), 0, 0.9),
        (block(20, 0, 6, 10), 1, 0.8),
        (block(40, 0, 20, 15), 1, 0.7),
        (block(5, 55, 10, 10), 0, 0.6),
        (block(40, 50, 5, 5), 1, 0.5),
    ]
    objects = tuple(Instance(mask=mask, class_index=kind, score=score) for mask, kind, score in found)
    return Result(objects=objects), InstancesTarget(np.array(true), kinds, crowd)


def test_each_object_is_told_under_its_kind_with_what_lies_near_it():
    cases = ObjectCases(CLASSES)
    cases.look("one", *scene())
    found = cases.cases()
    assert tuple(found) == KINDS
    told = {kind: [(one.name, round(one.iou, 2), one.score, one.near) for one in ones] for kind, ones in found.items()}
    assert told == {
        "best": [("car", 1.0, 0.9, None), ("cow", 0.6, 0.8, None)],
        "worst": [("cow", 0.6, 0.8, None), ("car", 1.0, 0.9, None)],
        "missed": [("car", 0.75, None, "cow")],
        "false": [("cow", 0.75, 0.7, "car"), ("cow", 0.0, 0.5, None)],
    }
    assert found["missed"][0].found.area == 300  # the cow
    assert found["false"][0].truth.area == 400
    assert found["missed"][0].caption == "one: car, 400 pixels; nearest: cow, IoU 0.75"
    assert found["false"][1].caption == "one: cow, 25 pixels, score 0.50; nothing near it"
    assert found["best"][1].caption == "one: cow, score 0.80, IoU 0.60"
    assert json.loads(json.dumps(found["false"][1].to_dict()))["box"] == [40, 50, 45, 55]


def test_of_many_objects_the_most_telling_are_kept_whatever_their_order():
    areas = list(range(1, 2 * KEPT + 1))
    for order in (areas, areas[::-1]):
        cases = ObjectCases(CLASSES)
        for number in order:
            truth = InstancesTarget(block(0, 0, 1, number)[None], np.zeros(1, np.int64), np.zeros(1, bool))
            cases.look(str(number), Result(objects=()), truth)
        assert [one.area for one in cases.cases()["missed"]] == areas[::-1][:KEPT]


def test_things_of_segments_are_objects_and_images_without_any_tell_nothing():
    ids = np.zeros(SIZE, np.int32)
    ids[:20, :20] = 1
    truth = SegmentsTarget(ids, np.array([1, 0]), np.array([False, True]), np.zeros(2, bool))
    cases = ObjectCases(CLASSES)
    cases.look("a", Result(objects=()), truth)
    none = np.zeros((0, *SIZE), bool), np.zeros(0, np.int64), np.zeros(0, bool)
    cases.look("b", Result(objects=()), InstancesTarget(*none))
    assert {kind: len(ones) for kind, ones in cases.cases().items()} == {"best": 0, "worst": 0, "missed": 1, "false": 0}


def test_a_crop_shows_the_object_with_room_around_it_and_each_mask_in_its_colour():
    image = np.full((*SIZE, 3), 200, np.uint8)
    truth, found = block(30, 40, 10, 20), block(30, 42, 10, 20)
    assert part_around(truth | found) == (11, 27, 59, 75)
    plain, true_part, found_part = object_row(image, truth, found)
    assert plain.shape == (FEWEST, FEWEST, 3)
    assert (plain == 200).all()
    inside = (30 - 11 + 5, 40 - 27 + 5)
    assert true_part[inside].tolist() == [(400 + value) // 3 for value in TRUE]
    assert found_part[inside].tolist() == [(400 + value) // 3 for value in FOUND]
    assert (object_row(image, None, found)[1] == 200).all()
    assert object_row(np.zeros((1, 1, 1), np.uint16), np.ones((1, 1), bool), None)[0].shape == (1, 1, 3)
