"""Boxes that stand for objects beside torchvision's matcher, points beside a slow obvious version."""

import numpy as np
import pytest
import torch
from fakes.objects_truth import rectangles
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from segatlas.ops import matching
from segatlas.ops.matching import BACKGROUND, IGNORED, TrueObjects, drawn, match, match_points, middles_of, true_objects

SIZE = (48, 64)
OBJECTS = ((0, 4, 4, 40, 44), (1, 10, 10, 26, 22), (2, 20, 30, 21, 31), (1, 10, 12, 26, 24))


def points():
    """Return the middles of cells of two levels, how near and how far objects are looked for, by the strides."""
    found, reach, bounds = [], [], []
    for stride, bound in ((4, (0.0, 14.0)), (8, (14.0, 100.0))):
        y, x = torch.meshgrid(*((torch.arange(side // stride) + 0.5) * stride for side in SIZE), indexing="ij")
        found.append(torch.stack([x, y], dim=2).flatten(0, 1))
        reach.append(torch.full((len(found[-1]),), 1.5 * stride))
        bounds.append(torch.tensor([bound]).expand(len(found[-1]), 2))
    return torch.cat(found), torch.cat(reach), torch.cat(bounds)


def slow(point, reach, bound, objects):
    """Return the object that a point stands for, BACKGROUND where there is none."""
    best, area = BACKGROUND, float("inf")
    for index, (_, top, left, bottom, right) in enumerate(objects):
        x, y = point
        sides = (x - left, y - top, right - x, bottom - y)
        middle = ((left + right - 1) / 2, (top + bottom - 1) / 2)
        near = abs(x - middle[0]) < reach and abs(y - middle[1]) < reach
        size = (right - left) * (bottom - top)
        if near and min(sides) > 0 and bound[0] <= max(sides) <= bound[1] and size < area:
            best, area = index, size
    return best


def test_points_stand_for_the_object_of_the_slow_way(monkeypatch):
    truth = true_objects(rectangles(*OBJECTS, size=SIZE), "cpu")
    places, reach, bounds = points()
    expected = [slow(*one, OBJECTS) for one in zip(places.tolist(), reach.tolist(), bounds.tolist(), strict=True)]
    assert set(expected) >= {BACKGROUND, 0, 1}
    assert match_points(places, reach, bounds, truth, SIZE).tolist() == expected
    monkeypatch.setattr(matching, "POINTS_AT_ONCE", 7)
    assert match_points(places, reach, bounds, truth, SIZE).tolist() == expected


def test_without_an_object_all_is_background_but_crowds_and_padding():
    places, reach, bounds = points()
    crowd = (0, 0, 0, 16, 16)
    truth = true_objects(rectangles(crowd, crowd=(0,), size=SIZE), "cpu")
    found = match_points(places, reach, bounds, truth, (32, 64))
    inside = (places < 16).all(dim=1)
    beyond = places[:, 1] >= 32
    assert (found[inside | beyond] == IGNORED).all()
    assert (found[~(inside | beyond)] == BACKGROUND).all()


def test_an_object_in_a_crowd_keeps_its_points():
    places, reach, bounds = points()
    alone = (1, 10, 10, 26, 22)
    truth = true_objects(rectangles(alone, (1, 0, 0, *SIZE), crowd=(1,), size=SIZE), "cpu")
    found = match_points(places, reach, bounds, truth, SIZE)
    assert (found == 0).any()
    assert ((found == 0) | (found == IGNORED)).all()


def test_the_middle_of_a_mask_is_the_mean_of_its_pixels():
    mask = np.random.default_rng(0).random((3, 9, 7)) < 0.3
    found = middles_of(torch.from_numpy(mask))
    for one, middle in zip(mask, found.tolist(), strict=True):
        rows, columns = one.nonzero()
        assert np.allclose(middle, (columns.mean(), rows.mean()))


@pytest.mark.parametrize(("below", "above", "best_always"), [(0.3, 0.7, True), (0.5, 0.5, False)])
def test_boxes_stand_for_the_objects_of_torchvisions_matcher(below, above, best_always):
    draw = torch.Generator().manual_seed(0)
    corners = torch.rand(500, 2, generator=draw) * 40
    boxes = torch.cat([corners, corners + 2 + torch.rand(500, 2, generator=draw) * 22], dim=1)
    chosen = boxes[:9] + torch.rand(9, 4, generator=draw)
    empty = torch.zeros(0, 4)
    objects = TrueObjects(chosen, torch.zeros(9, dtype=torch.long), torch.zeros(9, 64, 64, dtype=torch.bool), empty)
    limits = {"background_below": below, "object_from": above}
    found = match(boxes, objects, (100, 100), **limits, best_from=0.0 if best_always else None)
    theirs = Matcher(above, below, allow_low_quality_matches=best_always)(box_iou(chosen, boxes))
    assert found.tolist() == theirs.tolist()  # -1 below, -2 between in both
    assert {BACKGROUND, *range(3)} <= set(found.tolist())
    assert (IGNORED in found) == (below < above)


def owner_of(overlap, row, below, above, best_from):
    """Return what a box stands for where an object's best boxes are its own: MMDetection's rule, box by box."""
    values = overlap[row].tolist()
    best = max(values)
    found = values.index(best) if best >= above else BACKGROUND if best < below else IGNORED
    for index, value in enumerate(values):
        if value >= best_from and value == overlap[:, index].max():
            found = index
    return found


@pytest.mark.parametrize(("below", "above", "best_from"), [(0.3, 0.7, 0.3), (0.5, 0.5, 0.5), (0.3, 0.7, 0.6)])
def test_an_objects_best_boxes_from_an_overlap_on_are_its_own_though_they_overlap_another_more(below, above, best_from):
    draw = torch.Generator().manual_seed(4)
    corners = torch.rand(60, 2, generator=draw) * 40
    boxes = torch.cat([corners, corners + 4 + torch.rand(60, 2, generator=draw) * 20], dim=1)
    twins = boxes[:2] + torch.tensor([0.0, 0.0, 1.0, 0.0])  # boxes 0 and 1 are the best of two objects each
    chosen = torch.cat([twins, boxes[:2] + 0.5, boxes[5:6] + 9, torch.tensor([[90.0, 90.0, 99.0, 99.0]])])
    objects = TrueObjects(
        chosen, torch.zeros(6, dtype=torch.long), torch.zeros(6, 100, 100, dtype=torch.bool), torch.zeros(0, 4)
    )
    limits = {"background_below": below, "object_from": above}
    found = match(boxes, objects, (100, 100), **limits, best_from=best_from, best_own=True)
    overlap = box_iou(boxes, chosen)
    assert found.tolist() == [owner_of(overlap, row, below, above, best_from) for row in range(60)]
    assert (found != match(boxes, objects, (100, 100), **limits, best_from=best_from)).any()


def test_objects_are_drawn_up_to_their_fraction_and_background_fills_up():
    matched = torch.tensor([0] * 10 + [BACKGROUND] * 50 + [IGNORED] * 40)
    for count, expected in ((16, (4, 12)), (100, (10, 50)), (2, (0, 2))):
        positive, negative = drawn(matched, count, 0.25)
        assert (len(positive), len(negative)) == expected
        assert (matched[positive] == 0).all()
        assert (matched[negative] == BACKGROUND).all()
        assert len({*positive.tolist(), *negative.tolist()}) == sum(expected)
