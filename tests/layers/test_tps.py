"""segatlas.layers.tps: golden numbers, a slow form, exactness, degenerate points, random splines."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fakes.kfvton import off_golden
from torch.nn import functional as F

from segatlas.errors import UsageError
from segatlas.layers.tps import (
    ThinPlate,
    fit,
    fit_as_published,
    fit_or_identity,
    heat_maps,
    keypoints_of,
    lattice_points,
    pixel_points,
    random_plate,
    warped,
)


def points(*shape, seed=0):
    return torch.rand(*shape, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def test_the_published_spline_gives_the_authors_grid():
    i = torch.arange(60, dtype=torch.float64)
    at = (0.8 * torch.sin(1.3 * i)).reshape(2, 3, 5, 2)
    values = at + 0.1 * torch.cos(i).reshape(2, 3, 5, 2)
    grid = fit_as_published(at, values).grid((9, 7))
    assert grid.shape == (2, 3, 9, 7, 2)
    assert off_golden("tps_grid", grid) <= 1e-6


def slow(at, values, regularisation, queries):
    """One spline in numpy, pixel by pixel."""

    def u(p, q):
        squared = (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2
        return squared * math.log(squared + 1e-9)

    count = len(at)
    system = np.zeros((count + 3, count + 3))
    for i in range(count):
        system[i, count:] = system[count:, i] = (*at[i], 1)
        for j in range(count):
            system[i, j] = u(at[i], at[j]) + (regularisation if i == j else 0)
    found = np.linalg.solve(system, np.concatenate([values, np.zeros((3, 2))]))
    return np.array(
        [
            sum(u(q, at[i]) * found[i] for i in range(count)) + q[0] * found[-3] + q[1] * found[-2] + found[-1]
            for q in queries
        ]
    )


@pytest.mark.parametrize("regularisation", [0.0, 0.1])
def test_groups_of_splines_are_each_the_slow_form(regularisation):
    at, values, queries = points(2, 3, 6), points(2, 3, 6, seed=1), points(5, seed=2) * 1.5  # some beyond the image
    found = fit(at, values, regularisation)(queries)
    assert found.shape == (2, 3, 5, 2)
    for n in range(2):
        for g in range(3):
            expected = slow(at[n, g].numpy(), values[n, g].numpy(), regularisation, queries.numpy())
            np.testing.assert_allclose(found[n, g].numpy(), expected, rtol=1e-7, atol=1e-9)


def test_control_points_go_to_their_values_and_with_regularisation_near_them():
    at, values = points(7), points(7, seed=1)
    torch.testing.assert_close(fit(at, values)(at), values, rtol=0, atol=1e-6)
    near, far = ((fit(at, values, strength)(at) - values).abs().max() for strength in (0.01, 1.0))
    assert 0 < near < far


@pytest.mark.parametrize("regularisation", [0.0, 0.01, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_affine_is_met_exactly_at_any_regularisation(regularisation, dtype):
    at = points(3, 9).to(dtype)
    matrix, shift = torch.tensor([[0.9, 0.2], [-0.1, 1.1]], dtype=dtype), torch.tensor([0.3, -0.2], dtype=dtype)
    small = 1e-5 if dtype == torch.float32 else 1e-12
    whole = pixel_points((5, 8), at)
    torch.testing.assert_close(
        fit(at, at, regularisation).grid((5, 8)), whole.expand(3, -1, -1, -1), rtol=0, atol=small
    )
    moved = fit(at, at @ matrix + shift, regularisation)
    torch.testing.assert_close(moved.grid((5, 8)), (whole @ matrix + shift).expand(3, -1, -1, -1), rtol=0, atol=small)
    assert moved.weights.abs().max() < small


def test_the_published_one_does_not_even_meet_the_identity():
    at = points(9)
    assert (fit_as_published(at, at).affine[0, 0] - 1).abs() > 0.01


def test_under_autocast_and_of_half_precision_it_is_computed_in_float32():
    at, values = points(9).float(), points(9, seed=1).float()
    expected = fit(at, values).grid((6, 6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(fit(at, values).grid((6, 6)), expected)
        moved = warped(torch.rand(1, 2, 6, 6), expected.unsqueeze(0))
    assert moved.dtype == torch.float32
    assert fit(at.bfloat16(), values.bfloat16()).weights.dtype == torch.float32


def test_gradients_are_those_of_finite_differences():
    at, values = points(2, 4).requires_grad_(), points(2, 4, seed=1).requires_grad_()
    queries = points(3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, v, q: fit(a, v, 0.1)(q), (at, values, queries))


ON_A_LINE = torch.tensor([[-0.5, -0.5], [0.0, 0.0], [0.5, 0.5], [0.9, 0.9]])
TWICE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
NOT_FINITE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, math.nan], [1.0, 1.0]])


@pytest.mark.parametrize("at", [ON_A_LINE, TWICE, NOT_FINITE, TWICE * 0])
def test_points_that_determine_no_spline_are_refused_and_named(at):
    sound = lattice_points(2, 1.0, at)
    with pytest.raises(UsageError, match=r"control points of spline 1, 0 lie on one line, are not finite, or coincide"):
        fit(torch.stack([sound, at]).unsqueeze(1), sound)
    with pytest.raises(UsageError, match=r"control points lie on one line.*expected three at least"):
        fit(sound[:2], sound[:2])


def test_two_points_at_one_place_are_met_in_the_mean_with_regularisation():
    values = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.6]])
    found = fit(TWICE, values, 0.01)(TWICE)
    assert 0.6 < found[2, 1] < 1
    assert torch.equal(found[2], found[3])


def test_in_a_network_what_determines_no_spline_becomes_the_identity_without_a_gradient():
    at = torch.stack([ON_A_LINE, NOT_FINITE, lattice_points(2, 0.5, ON_A_LINE)]).requires_grad_()
    values = torch.full_like(at, 0.3) + torch.arange(4.0)[:, None] * 0.1
    plate = fit_or_identity(at, values, 0.01)
    grid = plate.grid((4, 4))
    torch.testing.assert_close(grid[:2], pixel_points((4, 4), grid).expand(2, -1, -1, -1), rtol=0, atol=1e-5)
    assert (grid[2] - pixel_points((4, 4), grid)).abs().max() > 0.1
    grid.sum().backward()
    assert at.grad.isfinite().all()
    assert not at.grad[:2].any()


def test_the_identity_samples_a_map_as_it_is_and_one_pixel_too():
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    for size in ((5, 7), (1, 7), (1, 1)):
        part = x[:, :, : size[0], : size[1]]
        torch.testing.assert_close(warped(part, pixel_points(size, x).expand(2, -1, -1, -1)), part)
    assert pixel_points((1, 1), x).abs().max() == 0


def test_a_spline_beyond_the_image_shows_its_edge():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    at = lattice_points(2, 1.0, x)
    assert torch.equal(
        warped(x, fit(at, at + torch.tensor([8.0, 0.0])).grid((3, 4)).unsqueeze(0))[0, 0], x[0, 0, :, 3:].expand(3, 4)
    )


def test_random_splines_are_near_the_identity_and_move_x_and_y_alike():
    drawn = [random_plate(400, torch.zeros(1), torch.Generator().manual_seed(3)) for _ in range(2)]
    plate = drawn[0]
    assert torch.equal(plate.affine, drawn[1].affine)
    assert plate.weights.shape == (400, 36, 2)
    assert torch.equal(plate.weights[..., 0], plate.weights[..., 1])
    noise = plate.affine - torch.eye(3, 2)
    assert noise.std().item() == pytest.approx(0.05, rel=0.1)
    assert plate.weights[..., 0].std().item() == pytest.approx(0.005, rel=0.1)
    assert isinstance(plate, ThinPlate)


def test_keypoints_are_the_means_of_their_heat_and_heat_maps_are_highest_at_theirs():
    at = torch.tensor([[[0.5, -0.25], [-1.0, 1.0]]])
    heat = heat_maps(at, (17, 33))
    assert heat.shape == (1, 2, 17, 33)
    assert heat[0, 0, 6, 24] == 1
    squared = (pixel_points((17, 33), at) - at[0, 1]).square().sum(-1)
    torch.testing.assert_close(heat[0, 1], torch.exp(-squared / 0.02))
    torch.testing.assert_close(keypoints_of(heat.log())[:, 0], at[:, 0], rtol=0, atol=1e-4)
    assert keypoints_of(torch.zeros(1, 2, 4, 4)).abs().max() < 1e-6


def test_a_warp_and_grid_sample_agree_on_what_a_grid_means():
    x, grid = torch.randn(1, 2, 6, 6), fit(points(4), points(4, seed=1)).grid((6, 6)).float().unsqueeze(0)
    torch.testing.assert_close(
        warped(x, grid), F.grid_sample(x, grid, align_corners=True, padding_mode="border", mode="bilinear")
    )
