"""The losses of cells with masks beside a slow form, cell by cell."""

import math

import pytest
import torch

from segatlas.losses.dynamic_masks import DynamicMasks, central_by

LABELS, CLASSES = torch.zeros(2, 8, 8, dtype=torch.uint8), 3


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def cells_of(maps, image):
    """Return what the maps of all levels say of each cell of an image."""
    return [
        level[image, :, row, column].tolist()
        for level in maps
        for row in range(level.shape[2])
        for column in range(level.shape[3])
    ]


def giou(one, other):
    """Return the generalised IoU of two boxes around the same point, given by their distances to it."""
    areas = [(left + right) * (top + bottom) for left, top, right, bottom in (one, other)]
    least, most = [list(map(f, one, other)) for f in (min, max)]
    common = (least[0] + least[2]) * (least[1] + least[3])
    around = (most[0] + most[2]) * (most[1] + most[3])
    union = sum(areas) - common
    return common / union - (around - union) / around


def slow(raw, alpha=0.25, gamma=2.0):
    """Return the four parts from loops."""
    targets = raw["distance_targets"].tolist()
    of_class = box = of_centerness = central_sum = 0.0
    used = 0
    for image, kinds in enumerate(raw["cell_classes"].tolist()):
        logits, distances, centerness = (
            cells_of(raw[name], image) for name in ("class_logits", "distances", "centerness")
        )
        for cell, kind in enumerate(kinds):
            if kind < 0:
                continue
            for index, logit in enumerate(logits[cell]):
                p = sigmoid(logit)
                if index == kind:
                    of_class -= alpha * (1 - p) ** gamma * math.log(p)
                else:
                    of_class -= (1 - alpha) * p**gamma * math.log(1 - p)
            if kind == CLASSES:
                continue
            left, top, right, bottom = targets[used]
            central = math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))
            box += central * (1 - giou(distances[cell], targets[used]))
            central_sum += central
            p = sigmoid(centerness[cell][0])
            of_centerness -= central * math.log(p) + (1 - central) * math.log(1 - p)
            used += 1
    mask = 0.0
    for found, wanted in zip(raw["mask_logits"], raw["mask_targets"], strict=True):
        pairs = [
            (sigmoid(logit), float(one))
            for logit, one in zip(found.flatten().tolist(), wanted.flatten().tolist(), strict=True)
            if one >= 0
        ]
        common = sum(p * one for p, one in pairs)
        squares = sum(p * p + one * one for p, one in pairs) + 1e-5
        mask += 1 - 2 * common / squares
    return {
        "class": of_class / used,
        "box": box / central_sum,
        "centerness": of_centerness / used,
        "mask": mask / len(raw["mask_logits"]),
    }


def example(seed=0):
    return DynamicMasks().example(LABELS, CLASSES, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_part_is_that_of_the_slow_way(seed):
    output = example(seed)
    found, expected = DynamicMasks().parts(output, []), slow(output.raw)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert abs(float(found[name]) - value) < 1e-9, name


def test_alpha_and_gamma_weigh_the_classes_as_in_the_slow_way():
    output = example()
    found = DynamicMasks(alpha=0.6, gamma=0.5).parts(output, [])["class"]
    assert abs(float(found) - slow(output.raw, 0.6, 0.5)["class"]) < 1e-9


def test_the_total_weighs_the_parts():
    output = example()
    parts = DynamicMasks().parts(output, [])
    alone = DynamicMasks(class_weight=0, box_weight=0, centerness_weight=0, mask_weight=3)
    assert torch.isclose(alone(output, []), 3 * parts["mask"])
    both = DynamicMasks(class_weight=0, box_weight=2, centerness_weight=5, mask_weight=0)
    assert torch.isclose(both(output, []), 2 * parts["box"] + 5 * parts["centerness"])


def test_cells_and_pixels_that_are_not_judged_change_nothing():
    output = example()
    raw = dict(output.raw)
    changed = [level.clone() for level in raw["class_logits"]]
    changed[-1][-1, :, -1, -1] += 5  # the last cell of the last image
    masks = raw["mask_logits"] + 7 * (raw["mask_targets"] < 0)
    other = output._replace(raw={**raw, "class_logits": tuple(changed), "mask_logits": masks})
    for name, value in DynamicMasks().parts(output, []).items():
        assert torch.equal(DynamicMasks().parts(other, [])[name], value)


def test_without_an_object_only_classes_cost_and_other_gradients_are_zero():
    output = example()
    raw = dict(output.raw)
    raw["cell_classes"] = torch.where(raw["cell_classes"] < 0, -1, CLASSES)
    for name in ("distance_targets", "mask_logits", "mask_targets"):
        raw[name] = raw[name][:0]
    for name in ("distances", "centerness"):
        raw[name] = tuple(level.requires_grad_() for level in raw[name])
    parts = DynamicMasks().parts(output._replace(raw=raw), [])
    sum(parts.values()).backward()
    assert parts["class"] > 0
    assert parts["box"] == parts["centerness"] == parts["mask"] == 0
    assert not any(level.grad.any() for name in ("distances", "centerness") for level in raw[name])


def test_a_point_in_the_middle_is_central_and_one_at_a_side_is_not():
    found = central_by(torch.tensor([[3.0, 5, 3, 5], [0.0, 5, 6, 5], [1.0, 2, 4, 2]]))
    assert found.tolist() == [1, 0, 0.5]
