"""Boxes beside slow obvious versions."""

import pytest
import torch

from segatlas.ops.boxes import (
    are_wide,
    boxes_of_masks,
    clipped,
    decode,
    encode,
    generalized_ious,
    ious,
    pooled,
    suppressed,
)


def random_boxes(count, seed=0):
    draw = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=draw) * 60
    return torch.cat([corner, corner + 1 + torch.rand(count, 2, generator=draw) * 30], dim=1)


def slow_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def test_overlap_is_that_of_the_slow_way():
    one, other = random_boxes(7), random_boxes(5, seed=1)
    slow = [[slow_iou(a, b) for b in other.tolist()] for a in one.tolist()]
    assert torch.allclose(ious(one, other), torch.tensor(slow), atol=1e-6)


def test_generalised_overlap_takes_off_what_lies_between_the_boxes():
    one, other = random_boxes(30), random_boxes(30, seed=1)
    for a, b, value in zip(one.tolist(), other.tolist(), generalized_ious(one, other).tolist(), strict=True):
        around = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
        union = sum(areas) / (1 + slow_iou(a, b))
        assert value == pytest.approx(slow_iou(a, b) - (around - union) / around, abs=1e-5)
    assert torch.allclose(generalized_ious(one, one), torch.ones(30))
    assert torch.isfinite(generalized_ious(torch.zeros(1, 4), torch.zeros(1, 4))).all()


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (10, 10, 5, 5)])
def test_deltas_lead_back_to_the_boxes_they_were_made_of(weights):
    boxes, anchors = random_boxes(9), random_boxes(9, seed=3)
    assert torch.allclose(decode(encode(boxes, anchors, weights), anchors, weights), boxes, atol=1e-3)


def test_a_wild_delta_grows_a_side_by_no_more_than_the_limit_and_shrinks_it_so_only_where_asked():
    anchor, wild = torch.tensor([[0.0, 0, 16, 16]]), torch.tensor([[0.0, 0, 50, -50]])
    box = decode(wild, anchor)[0]
    assert torch.isclose(box[2] - box[0], torch.tensor(1000.0))
    assert box[3] - box[1] < 1e-6
    box = decode(wild, anchor, shrink_limit=True)[0]
    assert torch.isclose(box[3] - box[1], torch.tensor(0.256))


def test_where_sides_shrink_by_the_limit_numbers_are_rounded_as_mmdetection_rounds_them():
    draw = torch.Generator().manual_seed(0)
    left = torch.rand(500, 2, generator=draw) * 300
    anchors = torch.cat([left, left + 1 + torch.rand(500, 2, generator=draw) * 90], dim=1)
    deltas = torch.randn(500, 4, generator=draw)
    scaled = deltas * torch.tensor([0.1, 0.1, 0.2, 0.2])
    middle, side = (anchors[:, :2] + anchors[:, 2:]) * 0.5, anchors[:, 2:] - anchors[:, :2]
    center, half = middle + side * scaled[:, :2], side * scaled[:, 2:].exp() * 0.5
    found = decode(deltas, anchors, (10, 10, 5, 5), shrink_limit=True)
    assert torch.equal(found, torch.cat([center - half, center + half], dim=1))
    assert not torch.equal(found, decode(deltas, anchors, (10, 10, 5, 5)))


def test_boxes_are_cut_at_the_image_and_narrow_ones_are_told():
    boxes = clipped(torch.tensor([[-5.0, -5, 200, 50], [90.0, 10, 95, 20]]), (40, 80))
    assert boxes.tolist() == [[0, 0, 80, 40], [80, 10, 80, 20]]
    assert are_wide(boxes, 0).tolist() == [True, False]


@pytest.mark.parametrize("shifted", [False, True])
def test_what_is_kept_of_overlapping_boxes_is_that_of_the_slow_way(shifted):
    boxes, groups = random_boxes(40), torch.arange(40) % 3
    scores = torch.rand(40, generator=torch.Generator().manual_seed(5))
    kept: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        mine = [other for other in kept if groups[other] == groups[index]]
        if all(slow_iou(boxes[index].tolist(), boxes[other].tolist()) <= 0.3 for other in mine):
            kept.append(index)
    assert suppressed(boxes, scores, groups, 0.3, None, shifted=shifted).tolist() == kept
    assert suppressed(boxes, scores, groups, 0.3, 4, shifted=shifted).tolist() == kept[:4]


def test_boxes_of_masks_end_behind_the_last_pixel_and_an_empty_mask_has_none():
    masks = torch.zeros(2, 6, 8, dtype=torch.bool)
    masks[0, 2:4, 3] = masks[0, 5, 6] = True
    boxes, there = boxes_of_masks(masks)
    assert boxes.tolist() == [[3, 2, 7, 6], [0, 0, 0, 0]]
    assert there.tolist() == [True, False]


def test_a_box_is_read_from_the_level_that_suits_its_size():
    maps = [torch.full((1, 1, 64 // 2**k, 64 // 2**k), float(k)) for k in range(4)]
    boxes = torch.tensor([[0.0, 0, 20, 20], [0, 0, 120, 120], [0, 0, 230, 230], [0, 0, 250, 1000]])
    found = pooled(maps, (4, 8, 16, 32), [boxes], 2)
    assert found[:3].mean(dim=(1, 2, 3)).tolist() == [0, 1, 2]
    assert found.shape == (4, 1, 2, 2)
