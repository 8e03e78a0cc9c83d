from __future__ import annotations

import numpy as np
import pytest

from segatlas.explain.error_report import least_score
from segatlas.explain.errors_of_objects import FoundObjects, found_objects, object_errors, true_objects
from segatlas.explain.errors_of_pixels import KINDS
from segatlas.metrics.object_pairs import TrueMasks
from segatlas.structures import Instance, InstancesTarget, Panoptic, Result, Rle, SegmentsTarget
from segatlas.structures.results import Segment

SIZE = (60, 80)


def square(top: int, left: int, height: int = 16, width: int = 20) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def errors(true: list[tuple[np.ndarray, int]], found: list[tuple[np.ndarray, int]], crowd: tuple[int, ...] = ()):
    masks = TrueMasks(
        [Rle.of(mask) for mask, _ in true],
        np.array([kind for _, kind in true], np.int64),
        np.array([index in crowd for index in range(len(true))], bool),
    )
    return object_errors(masks, FoundObjects([Rle.of(m) for m, _ in found], np.array([k for _, k in found], np.int64)))


TRUE = square(10, 10)
NOTCHED = TRUE & ~square(10, 10, 6) & ~square(18, 10, 3, 5)
DAMAGES = {
    "confused": ([(TRUE, 0)], [(TRUE, 1)]),
    "missed": ([(TRUE, 0)], []),
    "extra": ([], [(TRUE, 0)]),
    "shifted": ([(TRUE, 0)], [(square(18, 18), 0)]),
    "ragged": ([(TRUE, 0)], [(NOTCHED, 0)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_damage_is_one_error_of_its_kind(kind):
    found, right = errors(*DAMAGES[kind])
    assert [one.kind for one in found] == [kind]
    assert right == 0


def test_a_small_shift_of_a_found_object_and_one_without_overlap_are_both_shifted():
    for moved in (square(14, 10), square(10, 30)):
        assert [one.kind for one in errors([(TRUE, 0)], [(moved, 0)])[0]] == ["shifted"]
    too_far = errors([(TRUE, 0)], [(square(40, 55), 0)])[0]
    assert [one.kind for one in too_far] == ["missed", "extra"]


def test_right_objects_are_no_error_and_a_second_one_on_the_same_is_extra():
    found, right = errors([(TRUE, 0)], [(TRUE, 0), (square(10, 11), 0)])
    assert right == 1
    assert [(one.kind, one.true, one.found) for one in found] == [("extra", None, 1)]


def test_crowds_are_not_missed_and_what_lies_on_them_is_not_judged():
    assert errors([(TRUE, 0)], [], crowd=(0,)) == ([], 0)
    assert errors([(TRUE, 0)], [(square(12, 12, 8, 8), 0)], crowd=(0,)) == ([], 0)


def test_every_object_is_in_one_error_or_right():
    draw = np.random.default_rng(0)
    for _ in range(20):
        sides = [
            [(square(int(top), int(left)), int(kind)) for top, left, kind in draw.integers(0, (40, 55, 2), (4, 3))]
            for _ in range(2)
        ]
        found, right = errors(*sides)
        for place, many in (("true", sides[0]), ("found", sides[1])):
            numbers = [getattr(one, place) for one in found if getattr(one, place) is not None]
            assert len(numbers) == len(set(numbers)) == len(many) - right


def test_instances_below_the_score_do_not_count_and_segments_of_stuff_do():
    target = InstancesTarget(TRUE[None], np.array([1]), np.array([False]))
    result = Result(objects=(Instance(mask=TRUE, class_index=1, score=0.4),))
    assert len(found_objects(result, target, 0.5).masks) == 0
    assert len(found_objects(result, target, 0.3).masks) == 1
    ids = np.where(TRUE, 1, 0).astype(np.int32)
    segments = SegmentsTarget(ids, np.array([0, 1]), np.array([False, True]), np.array([False, False]))
    parts = tuple(
        Segment(id=n + 1, class_index=0, is_thing=False, score=None, area=1, box=(0, 0, 1, 1)) for n in range(2)
    )
    panoptic = Result(segments=Panoptic(ids=ids + 1, segments=parts))
    found, right = object_errors(true_objects(segments), found_objects(panoptic, segments, 0.5))
    assert right == 1
    assert [one.kind for one in found] == ["confused"]


def test_all_segments_of_a_panoptic_result_are_judged_whatever_their_score():
    assert (least_score("panoptic"), least_score("instance")) == (0, 0.5)
    ids = np.where(TRUE, 1, 0).astype(np.int32)
    target = SegmentsTarget(ids, np.array([0, 1]), np.array([False, True]), np.array([False, False]))
    parts = tuple(
        Segment(id=n + 1, class_index=n, is_thing=n == 1, score=(None, 0.1)[n], area=1, box=(0, 0, 1, 1))
        for n in (0, 1)
    )
    panoptic = Result(segments=Panoptic(ids=ids + 1, segments=parts))
    assert object_errors(true_objects(target), found_objects(panoptic, target, least_score("panoptic"))) == ([], 2)
