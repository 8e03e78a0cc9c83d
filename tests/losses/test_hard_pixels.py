"""The three losses of Panoptic-DeepLab against slow obvious forms: pixel by pixel, with crowds and ignored pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from segatlas import criteria
from segatlas.losses import LOSSES
from segatlas.structures import CentersAndOffsets, Resample, SegmentsTarget

N, K, SIZE, MAP, CANVAS = 2, 4, (22, 30), (6, 8), (24, 32)


def segments(seed: int = 0) -> SegmentsTarget:
    """Return stuff, a small and a larger thing, a crowd at the right, ignored pixels below."""
    ids = np.zeros(SIZE, np.int32)
    ids[2:9, 3 + seed : 9], ids[8:18, 12:20], ids[:, 26:], ids[20:] = 1, 2, 3, -1
    flags = [np.array(values, bool) for values in ([0, 1, 1, 1], [0, 0, 0, 1])]
    return SegmentsTarget(ids, np.array([0, 2, 3, 3]), *flags)


TARGETS = [segments(), segments(2)]


def output(align: bool = False) -> CentersAndOffsets:
    draw = torch.Generator().manual_seed(5)
    centers, offsets, semantic = (
        torch.randn(N, channels, *MAP, generator=draw, dtype=torch.float64, requires_grad=True)
        for channels in (1, 2, K)
    )
    return CentersAndOffsets(centers, offsets, None, CANVAS, Resample(align_corners=align), semantic=semantic)


def full(values: torch.Tensor, align: bool) -> np.ndarray:
    whole = torch.nn.functional.interpolate(values.detach(), size=CANVAS, mode="bilinear", align_corners=align)
    return whole[..., : SIZE[0], : SIZE[1]].numpy()


def pixels_of(target: SegmentsTarget, row: int) -> list[tuple[int, int]]:
    return [(y, x) for y in range(SIZE[0]) for x in range(SIZE[1]) if target.ids[y, x] == row]


def slow_hard(given: CentersAndOffsets, align: bool, kept: float, area: int, weight: float, crowds: bool) -> float:
    costs = []
    for logits, target in zip(full(given.semantic, align), TARGETS, strict=True):
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                row = int(target.ids[y, x])
                if row < 0 or (target.crowd[row] and not crowds):
                    costs.append(0.0)
                    continue
                z = logits[:, y, x]
                cost = math.log(sum(math.exp(v) for v in z)) - z[target.classes[row]]
                small = target.things[row] and len(pixels_of(target, row)) < area
                costs.append(cost * (weight if small else 1.0))
    hardest = sorted(costs, reverse=True)[: int(kept * len(costs))]
    return sum(hardest) / len(hardest)


def slow_centers(given: CentersAndOffsets, align: bool, spread: float) -> float:
    total, count = 0.0, 0
    for found, target in zip(full(given.centers, align)[:, 0], TARGETS, strict=True):
        middles = []
        for row in np.flatnonzero(target.things):
            mine = pixels_of(target, row)
            middles.append([round(sum(place[side] for place in mine) / len(mine)) for side in (0, 1)])
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                row = target.ids[y, x]
                if row < 0 or target.crowd[row]:
                    continue
                near = [m for m in middles if max(abs(y - m[0]), abs(x - m[1])) <= int(3 * spread) + 1]
                wanted = max(
                    (math.exp(-((y - m[0]) ** 2 + (x - m[1]) ** 2) / (2 * spread**2)) for m in near), default=0.0
                )
                total, count = total + (found[y, x] - wanted) ** 2, count + 1
    return total / count


def slow_offsets(given: CentersAndOffsets, align: bool) -> float:
    total, count = 0.0, 0
    for found, target in zip(full(given.offsets, align), TARGETS, strict=True):
        for row in np.flatnonzero(target.things & ~target.crowd):
            mine = pixels_of(target, row)
            middle = [sum(place[side] for place in mine) / len(mine) for side in (0, 1)]
            for place in mine:
                total += sum(abs(found[side][place] - (middle[side] - place[side])) for side in (0, 1))
                count += 1
    return total / count


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("kept", [0.2, 1.0])
def test_hard_pixels_are_a_fraction_of_all_after_small_things_were_weighed(align, crowds, kept):
    given = output(align)
    loss = LOSSES["hard_pixels"](kept=kept, small_area=60, small_weight=3.0, crowds=crowds)
    expected = slow_hard(given, align, kept, 60, 3.0, crowds)
    assert float(loss(given, TARGETS).detach()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("spread", [0.8, 8.0])
def test_centres_are_compared_with_gaussians_where_something_is_judged(align, spread):
    given = output(align)
    value = LOSSES["center_mse"](spread=spread)(given, TARGETS)
    assert float(value.detach()) == pytest.approx(slow_centers(given, align, spread), rel=1e-6)


@pytest.mark.parametrize("align", [False, True])
def test_offsets_are_compared_on_things_that_are_told_apart(align):
    given = output(align)
    value = LOSSES["offset_l1"]()(given, TARGETS)
    assert float(value.detach()) == pytest.approx(slow_offsets(given, align), rel=1e-6)


def test_the_three_add_up_and_each_map_has_its_gradient():
    terms = [LOSSES["hard_pixels"](), LOSSES["center_mse"](weight=200.0), LOSSES["offset_l1"](weight=0.01)]
    given = output()
    total, parts = criteria.build("CentersAndOffsets", terms)(given, TARGETS)
    weighted = parts["hard_pixels"] + 200 * parts["center_mse"] + 0.01 * parts["offset_l1"]
    assert float(total.detach()) == pytest.approx(float(weighted))
    total.backward()
    assert all(values.grad.abs().max() > 0 for values in (given.centers, given.offsets, given.semantic))


def test_a_batch_without_things_or_without_anything_labelled_costs_little_or_nothing():
    flags = np.zeros(1, bool)
    nothing = SegmentsTarget(np.full(SIZE, -1, np.int32), np.array([0]), flags, flags)
    stuff = nothing._replace(ids=np.zeros(SIZE, np.int32))
    given = output()
    assert float(LOSSES["offset_l1"]()(given, [stuff, stuff])) == 0
    for name in ("hard_pixels", "center_mse", "offset_l1"):
        value = LOSSES[name]()(given, [nothing, nothing])
        assert float(value) == 0
        value.backward()
