"""Masks over boxes become pixels as torchvision and detectron2 paste them, and segments as Panoptic FPN is merged."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from segatlas.config.objects import DETECTRON2, MMDET, TORCHVISION, ObjectRule, asked_rule, rule_faults
from segatlas.errors import DataError, TaskError, UsageError
from segatlas.ops.upsampling import upsample_aligned
from segatlas.postprocess import find
from segatlas.structures import DetectedMasks, Instance, Resample

SIZE = (60, 80)
CANVAS = (64, 96)


def detections(count=6, seed=0, side=7, semantic=None, labels=None, boxes=None, scores=None):
    draw = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=draw) * torch.tensor([60.0, 40.0])
    sides = torch.rand(count, 2, generator=draw) * torch.tensor([30.0, 20.0]) + 1
    given = torch.cat([corners, corners + sides], dim=1) if boxes is None else torch.tensor(boxes)
    score = torch.rand(count, generator=draw) if scores is None else torch.tensor(scores)
    kinds = torch.randint(0, 3, (count,), generator=draw) if labels is None else torch.tensor(labels)
    logits = torch.randn(count, side, side, generator=draw) * 3
    return DetectedMasks((given,), (score,), (kinds,), (logits,), CANVAS, semantic=semantic)


def found(output, task="instance", size=SIZE, crop=SIZE, **options):
    return find("DetectedMasks", task)(output, size, crop=crop, **options)[0]


def box_output(boxes, scores, labels, semantic=None):
    """Return detections whose masks fill their boxes."""
    logits = torch.full((len(boxes), 64, 64), 20.0)  # fine enough for corners to be inside
    parts = (
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores),
        torch.tensor(labels, dtype=torch.int64),
    )
    return DetectedMasks(*((part,) for part in parts), (logits,), CANVAS, semantic=semantic)


def test_whole_pixels_are_those_of_torchvision():
    heads = pytest.importorskip("torchvision.models.detection.roi_heads")
    output = detections(20)
    size = (75, 130)
    scale = torch.tensor([size[1] / SIZE[1], size[0] / SIZE[0]] * 2)
    pasted = heads.paste_masks_in_image(output.mask_logits[0][:, None].sigmoid(), output.boxes[0] * scale, size)
    objects = found(output, size=size, rule=TORCHVISION).instances
    order = output.scores[0].argsort(descending=True)
    for one, index in zip(objects, order.tolist(), strict=True):
        assert np.array_equal(one.mask, (pasted[index, 0] > 0.5).numpy())
        assert one.class_index == output.labels[0][index]
    assert sum(one.area for one in objects) > 1000


def test_a_grid_samples_the_mask_at_the_centre_of_each_pixel():
    output = detections(12, seed=1)
    objects = found(output).instances
    order = output.scores[0].argsort(descending=True).tolist()
    for one, index in zip(objects, order, strict=True):
        probabilities = np.pad(output.mask_logits[0][index].sigmoid().numpy(), 1)
        x0, y0, x1, y1 = output.boxes[0][index].tolist()
        slow = np.zeros(SIZE)
        for row in range(SIZE[0]):
            for column in range(SIZE[1]):
                v, u = (row + 0.5 - y0) / (y1 - y0) * 7 + 0.5, (column + 0.5 - x0) / (x1 - x0) * 7 + 0.5
                if 0 <= v < 8 and 0 <= u < 8:
                    i, j = int(v), int(u)
                    window = probabilities[i : i + 2, j : j + 2]
                    slow[row, column] = np.array([i + 1 - v, v - i]) @ window @ np.array([j + 1 - u, u - j])
        away = abs(slow - 0.5) > 1e-5
        assert np.array_equal(one.mask[away], slow[away] >= 0.5)
        assert one.box == pytest.approx((y0, x0, y1, x1))


def test_boxes_grow_with_the_image_and_padding_plays_no_part():
    (one,) = found(box_output([[10, 5, 30, 25]], [0.9], [1]), size=(120, 160), crop=SIZE).instances
    assert one.rle.box == (10, 20, 50, 60)
    assert one.box == (10, 20, 50, 60)
    assert one.area == 40 * 40


@pytest.mark.parametrize("upsampled", ["probabilities", "logits"])
def test_masks_over_the_canvas_are_upsampled_and_cut_to_the_image(upsampled):
    logits = torch.full((1, 16, 24), -9.0)
    logits[0, 4:8, 6:12] = 9.0
    output = DetectedMasks(
        (torch.tensor([[24.0, 16.0, 48.0, 32.0]]),),
        (torch.tensor([0.7]),),
        (torch.tensor([2]),),
        (logits,),
        CANVAS,
        frame="canvas",
    )
    (one,) = found(output, size=(120, 160), rule=ObjectRule(upsampled=upsampled)).instances
    assert one.rle.box == (32, 48, 64, 96)
    assert one.area == pytest.approx(32 * 48, rel=0.02)


def test_aligned_masks_are_upsampled_by_their_own_rule_before_they_are_cut_and_resized():
    draw = torch.Generator().manual_seed(2)
    logits = torch.randn(3, 16, 24, generator=draw) * 4
    boxes, scores = torch.tensor([[0.0, 0, 80, 60]]).expand(3, 4), torch.tensor([0.9, 0.8, 0.7])
    parts = ((boxes,), (scores,), (torch.zeros(3, dtype=torch.int64),), (logits,))
    output = DetectedMasks(*parts, CANVAS, resample=Resample("aligned"), frame="canvas")
    whole = upsample_aligned(logits.sigmoid()[None], 4)[..., : SIZE[0], : SIZE[1]]
    for size in (SIZE, (75, 130)):
        expected = interpolate(whole, size, mode="bilinear")[0] > 0.5
        objects = found(output, size=size, crop=SIZE, rule=ObjectRule(strict=True)).instances
        for one, mask in zip(objects, expected, strict=True):
            assert np.count_nonzero(one.mask != mask.numpy()) <= 2  # at one half, to the last bit


def test_score_top_overlap_and_classes_decide_which_objects_stay():
    output = box_output(
        [[0, 0, 20, 20], [1, 0, 21, 20], [1, 0, 21, 20], [40, 0, 60, 20]], [0.9, 0.8, 0.7, 0.1], [0, 0, 1, 1]
    )

    def left(**asked):
        return [(one.score, one.class_index) for one in found(output, rule=asked_rule(ObjectRule(), asked)).instances]

    everything = [(pytest.approx(score), kind) for score, kind in ((0.9, 0), (0.8, 0), (0.7, 1), (0.1, 1))]
    assert left() == everything
    assert left(score=0.5) == everything[:3]
    assert left(top=2) == everything[:2]
    assert left(overlap=0.5) == [everything[0], *everything[2:]]
    assert left(class_agnostic=True) == [everything[0], everything[3]]
    assert left(overlap=0.95, class_agnostic=True) == everything[:2] + everything[3:]


def test_no_cap_of_a_hundred_is_built_in():
    boxes = [
        [4.0 * (index % 20), 4.0 * (index // 20), 4.0 * (index % 20) + 3, 4.0 * (index // 20) + 3]
        for index in range(300)
    ]
    assert len(found(box_output(boxes, [0.5] * 300, [0] * 300)).instances) == 300


@pytest.mark.parametrize("asked", [{"score": 1.5}, {"score": math.nan}, {"top": 0}, {"overlap": -0.1}, {"iou": 0.5}])
def test_bounds_that_cannot_be_are_wrong_usage(asked):
    with pytest.raises(UsageError, match="expected"):
        asked_rule(ObjectRule(), asked)
    assert not rule_faults(DETECTRON2) + rule_faults(MMDET) + rule_faults(TORCHVISION)


def test_a_box_that_is_no_number_is_refused():
    with pytest.raises(DataError, match="no numbers"):
        found(box_output([[0, math.nan, 10, 10]], [0.9], [0]))
    with pytest.raises(DataError, match="no numbers"):
        found(box_output([[0, 0, 10, 10]], [math.nan], [0]))


def test_an_image_may_have_no_object_one_that_fills_it_or_a_single_pixel():
    assert found(box_output([], [], [])).instances == ()
    (one,) = found(box_output([[0, 0, 80, 60]], [0.9], [0])).instances
    assert one.mask.all()
    (one,) = found(box_output([[0, 0, 80, 60]], [0.9], [0]), size=(1, 1)).instances
    assert one.mask.all()
    (one,) = found(box_output([[5, 5, 5, 9]], [0.9], [0])).instances  # a box without an inside
    assert one.area == 0


# ---- segments
THINGS = (False, True, True, False, False)
"""Classes 1 and 2 are things, 0, 3 and 4 stuff."""


def stuff_logits(rows, other):
    """Return semantic logits at stride 4: the named semantic channel wins in each quarter of the rows."""
    logits = torch.zeros(1, 4, 16, 24)
    for index, row in enumerate(rows):
        logits[0, row, 4 * index : 4 * index + 4] = 9.0
    return logits if other == "first" else logits.roll(-1, dims=1)


@pytest.mark.parametrize("other", ["first", "last"])
def test_better_things_lie_on_top_and_stuff_fills_the_rest(other):
    semantic = stuff_logits([1, 2, 0, 3], other)  # stuff classes 0, 3, "any thing", 4
    boxes = [[0, 0, 40, 40], [0, 0, 40, 24], [60, 0, 76, 16], [50, 30, 70, 50]]
    output = box_output(boxes, [0.6, 0.9, 0.4, 0.7], [0, 1, 1, 1], semantic)
    rule = ObjectRule(other=other, stuff_area=10)
    result = found(output, "panoptic", rule=rule, things=THINGS)
    kinds = {one.id: (one.class_index, one.is_thing) for one in result.panoptic.segments}
    assert kinds == {1: (2, True), 2: (2, True), 3: (0, False), 4: (3, False), 5: (4, False)}  # 0.6 is under by 60 %
    ids = result.panoptic.ids
    assert ids.dtype == np.int32
    assert (ids[:24, :40] == 1).all()
    assert (ids[30:50, 50:70] == 2).all()
    assert (ids[:12, 42:] == 3).all()
    assert (ids[36:44, :45] == 0).all()  # "any thing" where no thing was found
    for one in result.panoptic.segments:
        inside = ids == one.id
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        assert one.area == inside.sum()
        assert one.box == (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
    assert [one.score for one in result.panoptic.segments[2:]] == [None] * 3
    assert len(result.instances) == 4
    kind_of = np.array([9, *(one.class_index for one in result.panoptic.segments)])[ids]
    assert np.array_equal(result.semantic[ids > 0], kind_of[ids > 0])
    assert set(np.unique(result.semantic[ids == 0]).tolist()) <= {0, 3, 4}
    assert np.array_equal(found(output, "semantic", rule=rule, things=THINGS).semantic, result.semantic)
    assert found(output, "instance", rule=rule, things=THINGS).instances == result.instances


def test_the_two_sources_bounds_differ_as_their_rules_say():
    semantic = stuff_logits([1, 1, 1, 1], "first")
    half = box_output([[0, 0, 20, 20], [10, 0, 30, 20]], [0.9, 0.55], [0, 0], semantic)  # the second is half under
    ids = found(half, "panoptic", rule=ObjectRule(stuff_area=0), things=THINGS).panoptic
    assert [one.area for one in ids.segments] == [400, 200, 60 * 80 - 600]
    last = half._replace(semantic=semantic.roll(-1, dims=1))
    assert [one.score for one in found(last, "panoptic", rule=MMDET, things=THINGS).panoptic.segments] == [
        pytest.approx(0.9),
        None,
    ]
    small = found(half, "panoptic", rule=ObjectRule(stuff_area=4201), things=THINGS)
    assert [one.is_thing for one in small.panoptic.segments] == [True, True]
    assert (small.semantic[small.panoptic.ids == 0] == 0).all()


def test_ids_are_unique_whatever_the_classes():
    semantic = stuff_logits([1, 2, 1, 2], "first")
    boxes = [[10 * index, 0, 10 * index + 8, 60] for index in range(8)]
    segments = found(
        box_output([[float(v) for v in box] for box in boxes], [0.9] * 8, [0, 1] * 4, semantic),
        "panoptic",
        rule=ObjectRule(stuff_area=1),
        things=THINGS,
    ).panoptic.segments
    assert [one.id for one in segments] == list(range(1, 11))


def test_a_network_without_semantic_logits_gives_objects_only():
    with pytest.raises(TaskError, match="it can give: instance"):
        found(detections(), "panoptic", things=THINGS)
    with pytest.raises(TaskError, match="4 semantic logits for 2 classes of stuff"):
        found(box_output([], [], [], stuff_logits([0, 0, 0, 0], "first")), "panoptic", things=THINGS[1:])


def test_two_thousand_objects_are_pasted():
    boxes = [
        [2.0 * (index % 40), 1.0 * (index // 40), 2.0 * (index % 40) + 2, 1.0 * (index // 40) + 1]
        for index in range(2000)
    ]
    objects = found(box_output(boxes, [0.5] * 2000, [0] * 2000)).instances
    assert len(objects) == 2000
    assert {one.area for one in objects} == {2}
    assert isinstance(objects[0], Instance)
