"""Terms of distillation against their formulas written out, and what each of them does not see."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from segatlas.ops.distillation import at_positions, channel_wise, pair_wise, pixel_wise, positions_within

TERMS = (pixel_wise, channel_wise, pair_wise)


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def both():
    return maps(2, 3, 4, 6, seed=1), maps(2, 3, 4, 6, seed=2)


def divergence(student: list[float], teacher: list[float], temperature: float) -> float:
    """KL of two softmaxes, a number at a time."""
    ours, theirs = ([math.exp(value / temperature) for value in values] for values in (student, teacher))
    ours, theirs = ([value / sum(values) for value in values] for values in (ours, theirs))
    return sum(t * math.log(t / s) for s, t in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_pixel_wise_is_the_mean_divergence_of_classes_over_pixels(both, temperature):
    student, teacher = both
    places = list(itertools.product(range(2), range(4), range(6)))
    each = [divergence(student[n, :, y, x].tolist(), teacher[n, :, y, x].tolist(), temperature) for n, y, x in places]
    expected = temperature**2 * sum(each) / len(each)
    assert float(pixel_wise(student, teacher, temperature)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_channel_wise_is_the_mean_divergence_of_positions_over_channels(both, temperature):
    student, teacher = both
    places = list(itertools.product(range(2), range(3)))
    each = [
        divergence(student[n, c].flatten().tolist(), teacher[n, c].flatten().tolist(), temperature) for n, c in places
    ]
    expected = temperature**2 * sum(each) / len(each)
    assert float(channel_wise(student, teacher, temperature)) == pytest.approx(expected, rel=1e-12)


def test_pair_wise_is_the_mean_squared_difference_of_cosines_of_pooled_cells(both):
    student, teacher = both
    cells = list(itertools.product(range(2), range(2)))  # of 2 x 3 pixels at half a side
    total = 0.0
    for n in range(2):
        for (y, x), (v, u) in itertools.product(cells, cells):
            cosines = []
            for values in (student, teacher):
                one, other = (
                    [float(values[n, c, 2 * row : 2 * row + 2, 3 * col : 3 * col + 3].max()) for c in range(3)]
                    for row, col in ((y, x), (v, u))
                )
                dot = sum(a * b for a, b in zip(one, other, strict=True))
                cosines.append(dot / (math.hypot(*one) * math.hypot(*other)))
            total += (cosines[0] - cosines[1]) ** 2
    assert float(pair_wise(student, teacher, 0.5)) == pytest.approx(total / (2 * 4 * 4), rel=1e-6)


@pytest.mark.parametrize("sides", [(5, 7), (1, 1), (3, 9)])
def test_cells_are_rounded_down_and_a_last_one_may_be_smaller(sides):
    student, teacher = maps(1, 2, *sides, seed=1), maps(1, 4, *sides, seed=2)
    cell = [max(side // 2, 1) for side in sides]
    pooled = [F.max_pool2d(values, cell, cell, ceil_mode=True).flatten(2)[0] for values in (student, teacher)]
    assert pooled[0].shape[1] == math.prod(-(-side // size) for side, size in zip(sides, cell, strict=True))
    alike = [F.normalize(values, dim=0).T @ F.normalize(values, dim=0) for values in pooled]
    expected = float((alike[0] - alike[1]).square().mean())
    assert float(pair_wise(student, teacher, 0.5)) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("term", TERMS)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(both, term):
    student = both[0].clone().requires_grad_()
    value = term(student, both[0])
    value.backward()
    assert abs(float(value.detach())) < 1e-14
    assert float(student.grad.abs().max()) < 1e-14


@pytest.mark.parametrize("term", TERMS)
def test_a_gradient_is_that_of_the_value_and_finite_in_float32(both, term):
    student, teacher = both
    if term is not pair_wise:  # whose lengths count as constants
        assert torch.autograd.gradcheck(lambda x: term(x, teacher), student.clone().requires_grad_())
    large = (1e4 * student).float().requires_grad_()
    term(large, (1e4 * teacher).float()).backward()
    assert torch.isfinite(large.grad).all()


def test_lengths_count_as_constants_in_the_gradient_of_pair_wise(both):
    student, teacher = both
    leaf = student.clone().requires_grad_()
    pair_wise(leaf, teacher, 0.01).backward()  # cells of one pixel
    values, want = student.flatten(2), teacher.flatten(2)
    lengths = values.norm(dim=1, keepdim=True) + 1e-8
    again = values.clone().requires_grad_()
    ours, theirs = again / lengths, want / (want.norm(dim=1, keepdim=True) + 1e-8)
    (ours.transpose(1, 2) @ ours - theirs.transpose(1, 2) @ theirs).square().mean().backward()
    assert torch.allclose(leaf.grad.flatten(2), again.grad, rtol=1e-10)


def test_a_constant_of_a_channel_changes_nothing_channel_wise_and_one_of_a_pixel_nothing_pixel_wise(both):
    student, teacher = both
    of_channel, of_pixel = maps(2, 3, 1, 1, seed=3), maps(2, 1, 4, 6, seed=4)
    for term, same, other in ((channel_wise, of_channel, of_pixel), (pixel_wise, of_pixel, of_channel)):
        plain = float(term(student, teacher))
        assert float(term(student + same, teacher)) == pytest.approx(plain, rel=1e-12)
        assert float(term(student + other, teacher)) != pytest.approx(plain, rel=1e-3)


def test_pair_wise_sees_neither_the_order_nor_the_number_nor_the_scale_of_channels(both):
    student, teacher = both
    plain = float(pair_wise(student, teacher))
    assert float(pair_wise(student[:, [2, 0, 1]], teacher)) == pytest.approx(plain, rel=1e-12)
    assert float(pair_wise(student, teacher.repeat(1, 4, 1, 1))) == pytest.approx(plain, rel=1e-6)
    assert float(pair_wise(3 * student, teacher)) == pytest.approx(plain, rel=1e-6)


# ---- positions
@pytest.mark.parametrize("size", [(4, 6), (8, 12), (3, 5), (1, 1)])
def test_maps_over_the_same_pixels_are_interpolated_as_torch_does(size):
    values = maps(2, 3, 4, 6)
    expected = F.interpolate(values, size=size, mode="bilinear", align_corners=False)
    assert torch.allclose(at_positions(values, (32, 48), size, (32, 48)), expected)


def test_over_other_pixels_a_map_is_read_where_the_other_one_has_its_centres():
    # a map whose value is the row of its centre, over 40 rows; the other has strides of 32 over 64 rows: 16 and 48
    values = (torch.arange(5, dtype=torch.float64) * 8 + 4).view(1, 1, 5, 1).expand(1, 1, 5, 8)
    assert positions_within((40, 64), (2, 2), (64, 64)) == (1, 2)
    found = at_positions(values, (40, 64), (2, 2), (64, 64))
    assert found.shape == (1, 1, 1, 2)
    assert found[0, 0, 0].tolist() == [16.0, 16.0]


@pytest.mark.parametrize("canvas", [(40, 56), (33, 47), (64, 64)])
def test_a_linear_map_stays_linear_whatever_the_paddings_are(canvas):
    rows, columns = 10, 14
    y = (torch.arange(rows, dtype=torch.float64) + 0.5) * canvas[0] / rows
    x = (torch.arange(columns, dtype=torch.float64) + 0.5) * canvas[1] / columns
    values = (2 * y[:, None] + x[None, :])[None, None]
    found = at_positions(values, canvas, (16, 16), (64, 64))
    count = positions_within(canvas, (16, 16), (64, 64))
    assert tuple(found.shape[-2:]) == count == tuple(min(math.ceil(side / 4 - 0.5), 16) for side in canvas)
    down, right = (
        ((torch.arange(number, dtype=torch.float64) + 0.5) * 4).clamp(float(own[0]), float(own[-1]))
        for number, own in zip(count, (y, x), strict=True)
    )
    assert torch.allclose(found[0, 0], 2 * down[:, None] + right[None, :], rtol=1e-5)
