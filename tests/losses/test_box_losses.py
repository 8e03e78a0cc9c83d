"""BoxInst's losses: facts of the formulas, and beside slow obvious versions of them."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from segatlas.losses import LOSSES
from segatlas.ops.box_losses import (
    class_pairwise_losses,
    color_similarity,
    lab_of,
    pairwise_losses,
    pasted,
    projection_losses,
)
from segatlas.structures import DetectedMasks, InstancesTarget, QueryMasks, Surroundings, WithSurroundings


def around(image: torch.Tensor, progress: float = 1.0) -> Surroundings:
    valid = torch.ones(len(image), *image.shape[2:], dtype=torch.bool)
    return Surroundings(image=image, valid=valid, mean=(0.5,) * 3, std=(0.25,) * 3, progress=progress)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_mask_that_fills_its_box_has_no_projection_loss_and_a_cross_through_it_neither():
    box = torch.zeros(1, 12, 16, dtype=torch.float64)
    box[:, 3:9, 4:13] = 1
    cross = torch.zeros_like(box)
    cross[:, 5, 4:13], cross[:, 3:9, 7] = 1, 1
    assert projection_losses(box, box).item() < 1e-5
    assert projection_losses(cross, box).item() < 1e-5
    assert projection_losses(box.roll(2, 1), box).item() > 0.1
    assert projection_losses(torch.zeros_like(box), box).item() == pytest.approx(2)


def test_projection_is_dice_of_the_largest_values_of_rows_and_columns():
    p, box = draw(2, 5, 6).sigmoid(), (draw(2, 5, 6, seed=1) > 0).double()
    for found, one, wanted in zip(projection_losses(p, box), p, box, strict=True):
        total = 0.0
        for axis in (0, 1):
            a, b = one.numpy().max(axis), wanted.numpy().max(axis)
            total += 1 - 2 * (a * b).sum() / ((a**2).sum() + (b**2).sum() + 1e-5)
        assert found.item() == pytest.approx(total)


def test_pairs_cost_minus_log_of_the_probability_that_they_agree():
    logits, dilation = draw(1, 5, 7), 2
    found = pairwise_losses(logits, dilation)[0].numpy()
    p = logits[0].sigmoid().numpy()
    steps = [(y, x) for y in (-2, 0, 2) for x in (-2, 0, 2) if (y, x) != (0, 0)]
    for place, (y, x) in enumerate(steps):
        for row in range(5):
            for column in range(7):
                r, c = row + y, column + x
                if 0 <= r < 5 and 0 <= c < 7:
                    agree = p[row, column] * p[r, c] + (1 - p[row, column]) * (1 - p[r, c])
                    assert found[place, row, column] == pytest.approx(-math.log(agree))


def test_pairs_of_certain_uniform_masks_cost_nothing():
    for sign in (-1, 1):
        assert pairwise_losses(torch.full((1, 6, 6), 40.0 * sign), 2).max() < 1e-6
    assert pairwise_losses(torch.zeros(1, 6, 6), 2)[:, :, 2:4, 2:4].min() == pytest.approx(math.log(2))
    sure = torch.full((1, 3, 6, 6), -40.0)
    sure[:, 1] = 0
    assert class_pairwise_losses(sure, 1).max() < 1e-6


def test_lab_is_that_of_opencv():
    image = np.random.default_rng(0).random((6, 7, 3)).astype(np.float32)
    expected = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    found = lab_of(torch.from_numpy(image).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    np.testing.assert_allclose(found.numpy(), expected, atol=0.3)


def test_colours_are_alike_by_their_distance_and_never_with_padding():
    lab = torch.zeros(1, 3, 4, 6)
    lab[..., 3:] = 4.0
    valid = torch.ones(1, 4, 6, dtype=torch.bool)
    valid[..., 5] = False
    found = color_similarity(lab, valid, 1)[0]
    left, right = found[3], found[4]
    assert right[1, 1] == 1
    assert right[1, 2] == pytest.approx(math.exp(-math.sqrt(48) / 2))
    assert (left[:, 0], right[:, 4], found[:, :, 5]) == (pytest.approx(0), pytest.approx(0), pytest.approx(0))


def test_a_mask_is_pasted_where_its_box_lies():
    masks = torch.ones(1, 4, 4)
    found = pasted(masks, torch.tensor([[8.0, 4.0, 24.0, 12.0]]), (16, 32), 4, -5.0)
    expected = torch.full((1, 4, 8), -5.0)
    expected[:, 1:3, 2:6] = 1
    torch.testing.assert_close(found, expected)
    ramp = torch.arange(4.0).expand(1, 4, 4)
    torch.testing.assert_close(pasted(ramp, torch.tensor([[0.0, 0, 16, 16]]), (16, 16), 4, 0.0), ramp)


def objects(logits: torch.Tensor, boxes: torch.Tensor, image: torch.Tensor) -> WithSurroundings:
    raw = {"mask_logits": logits, "mask_targets": boxes, "mask_images": torch.zeros(len(logits), dtype=torch.int64)}
    size = (image.shape[2], image.shape[3])
    output = DetectedMasks(boxes=(), scores=(), labels=(), mask_logits=(), canvas=size, raw=raw)
    return WithSurroundings(output, around(image))


def test_of_all_masks_with_the_box_of_an_object_that_of_its_colour_costs_least():
    rows, columns = torch.meshgrid(torch.arange(24), torch.arange(24), indexing="ij")
    apart = (rows - 11.5) ** 2 + (columns - 11.5) ** 2
    image = torch.where(apart < 64, 2.0, -2.0).expand(1, 3, 24, 24)
    box = torch.zeros(1, 24, 24, dtype=torch.int8)
    box[:, 4:20, 4:20] = 1
    cross = (((rows - 11.5).abs() < 1) | ((columns - 11.5).abs() < 1)) & (box[0] > 0)
    loss = LOSSES["box_masks"](dilation=1, ramp=0.0)
    costs = {
        name: loss(objects(torch.where(mask, 20.0, -20.0)[None], box, image), None).item()
        for name, mask in {"disc": apart < 64, "box": box[0] > 0, "cross": cross, "half": apart < 16}.items()
    }
    assert costs["disc"] < 1e-3
    assert all(cost > 0.3 for name, cost in costs.items() if name != "disc")


def test_no_object_costs_nothing_and_the_pairs_grow_over_the_ramp():
    image = draw(1, 3, 8, 8).float()
    nothing = objects(torch.zeros(0, 8, 8, requires_grad=True), torch.zeros(0, 8, 8), image)
    assert LOSSES["box_masks"]()(nothing, None) == 0
    given = objects(draw(1, 8, 8).float(), torch.ones(1, 8, 8), torch.zeros(1, 3, 8, 8))
    loss = LOSSES["box_masks"](ramp=0.2)
    whole, half = (
        loss.parts(given._replace(around=given.around._replace(progress=done)), None)["pairwise"] for done in (1.0, 0.1)
    )
    assert half == pytest.approx(whole / 2)


def test_masks_of_two_stages_are_taken_of_the_class_of_each_box():
    raw = {
        "box_classes": torch.tensor([1, 2, 0, 2]),  # 2 is none; the first two are of image 0
        "proposals": (torch.tensor([[0.0, 0, 8, 8], [4, 4, 8, 8]]), torch.tensor([[8.0, 8, 16, 16], [0, 0, 4, 4]])),
        "mask_logits": torch.stack([torch.full((2, 2), value) for value in (1.0, 2, 3, 4)]).view(2, 2, 2, 2),
        "mask_targets": torch.ones(2, 2, 2),
    }
    output = DetectedMasks(boxes=(), scores=(), labels=(), mask_logits=(), canvas=(16, 16), raw=raw)
    masks, boxes, images = LOSSES["box_masks"](stride=4).masks_of(output)
    assert images.tolist() == [0, 1]
    assert (masks[0, :2, :2] == 2).all()
    assert (masks[1, 2:, 2:] == 3).all()
    assert masks[0, 2:].max() < -20
    assert boxes.flatten(1).sum(dim=1).tolist() == [4, 4]


def test_regions_cost_nothing_where_they_fill_their_boxes_and_the_background_is_right():
    labels = torch.zeros(1, 16, 16, dtype=torch.uint8)
    labels[:, 4:12, 4:12] = 2
    image = torch.zeros(1, 3, 16, 16)
    sure = torch.full((1, 3, 16, 16), -30.0)
    sure.scatter_(1, labels.long()[:, None], 30.0)
    loss = LOSSES["box_regions"](stride=1, ramp=0.0)
    parts = loss.parts(WithSurroundings(sure, around(image)), labels)
    assert parts["allowed"] < 1e-4
    assert parts["projection"] < 1e-4
    image[:, :, 4:12, 4:12] = 3.0  # colours that differ take the pairs over the border away
    assert loss.parts(WithSurroundings(sure, around(image)), labels)["pairwise"] < 1e-4


def test_inside_boxes_classes_without_a_box_in_the_image_are_wrong_and_outside_all_but_the_background():
    labels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    labels[:, 2:6, 2:6] = 1
    loss = LOSSES["box_regions"](stride=1)

    def allowed(kind: int, place: tuple[slice, slice]) -> float:
        scores = torch.zeros(1, 3, 8, 8)
        scores[:, 0] = 20
        scores[(slice(None), slice(None), *place)] = 0
        scores[(slice(None), kind, *place)] = 20
        return loss.parts(WithSurroundings(scores, around(torch.zeros(1, 3, 8, 8))), labels)["allowed"].item()

    inside, outside = (slice(3, 5), slice(3, 5)), (slice(0, 1), slice(0, 1))
    assert allowed(1, inside) < 1e-3
    assert allowed(0, inside) < 1e-3
    assert allowed(2, inside) > 1
    assert allowed(1, outside) > 0.2


def test_an_image_without_a_box_is_background_and_one_of_ignored_pixels_nothing():
    logits = draw(1, 3, 4, 4).float().requires_grad_()
    loss = LOSSES["box_regions"](stride=1)
    given = WithSurroundings(logits, around(torch.zeros(1, 3, 4, 4)))
    empty = torch.zeros(1, 4, 4, dtype=torch.uint8)
    assert loss(given, empty).item() == pytest.approx(-logits.log_softmax(1)[:, 0].mean().item(), rel=1e-5)
    nothing = loss(given, empty + 255)
    assert nothing == 0
    assert torch.autograd.grad(nothing, logits)[0].abs().max() == 0


def test_queries_are_matched_with_boxes_by_their_projections_and_cost_what_boxes_say():
    image = torch.zeros(1, 3, 16, 24)
    masks = torch.zeros(2, 16, 24, dtype=torch.bool)
    masks[0, 2:10, 2:10], masks[1, 4:14, 12:22] = True, True
    target = InstancesTarget(masks, torch.tensor([0, 1]), torch.zeros(2, dtype=torch.bool))
    sure = torch.full((1, 3, 16, 24), -20.0)
    sure[0, 1][masks[0]], sure[0, 2][masks[1]] = 20.0, 20.0  # query 1 is the first object, query 2 the second
    classes = torch.full((1, 3, 3), -20.0)
    classes[0, 0, 2], classes[0, 1, 0], classes[0, 2, 1] = 20.0, 20.0, 20.0
    image[0, :, masks.any(dim=0)] = 3.0
    loss = LOSSES["query_boxes"](dilation=1, ramp=0.0)
    parts = loss.parts(WithSurroundings(QueryMasks(classes, sure, canvas=(16, 24)), around(image)), [target])
    assert all(value < 1e-3 for value in parts.values())
    wrong = sure.flip(1).clone().requires_grad_()
    given = WithSurroundings(QueryMasks(classes, wrong, canvas=(16, 24)), around(image))
    total = loss.total(loss.parts(given, [target]))
    assert total > 1
    assert torch.autograd.grad(total, wrong)[0].abs().max() > 0
    nothing = InstancesTarget(masks[:0], torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))
    assert loss.parts(given, [nothing])["dice"] == 0
