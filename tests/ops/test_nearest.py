"""The quick search for the nearest centre against the comparison of all pairs, number by number."""

from __future__ import annotations

import pytest
import torch

from segatlas.ops.nearest import nearest, slow_nearest


def scattered(count: int, spread: float, seed: int) -> torch.Tensor:
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed)) * spread + 100


@pytest.mark.parametrize("centers", [1, 2, 3, 40, 200])
@pytest.mark.parametrize("spread", [0.3, 30.0, 700.0])
def test_it_is_the_nearest_of_all_pairs(centers, spread):
    points, middles = scattered(3000, spread, 1), scattered(centers, 60.0, 2).round()
    assert torch.equal(nearest(points, middles), slow_nearest(points, middles))


def test_of_equally_near_centres_it_is_the_first():
    middles = torch.tensor([[10.0, 10.0], [10.0, 20.0], [10.0, 10.0], [20.0, 10.0]])
    grid = torch.cartesian_prod(torch.arange(40.0), torch.arange(40.0))
    found = nearest(grid, middles)
    assert torch.equal(found, slow_nearest(grid, middles))
    assert found[grid.tolist().index([10.0, 15.0])] == 0
    assert not (found == 2).any()


def test_points_that_lie_far_apart_or_are_no_numbers_are_compared_with_all():
    middles = scattered(5, 50.0, 3)
    points = torch.tensor([[0.0, 0.0], [1e7, -1e7], [5.0, 3e6]])
    assert torch.equal(nearest(points, middles), slow_nearest(points, middles))
    points[1, 0] = torch.nan
    assert torch.equal(nearest(points, middles), slow_nearest(points, middles))


def test_no_points_have_no_nearest():
    assert nearest(torch.zeros(0, 2), scattered(4, 10.0, 1)).shape == (0,)
