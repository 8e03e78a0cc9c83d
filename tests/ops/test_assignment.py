"""The assignment of lowest costs, beside all assignments that there are."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from segatlas.ops.assignment import assigned


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5), (5, 2), (4, 6), (6, 4)])
def test_no_other_assignment_costs_less(shape):
    for seed in range(40):
        draw = np.random.default_rng(seed)
        costs = draw.normal(0, 3, shape) if seed % 2 else draw.integers(-3, 4, shape).astype(float)  # with ties
        rows, columns = assigned(costs)
        few, many = sorted(shape)
        table = costs if shape[0] <= shape[1] else costs.T
        lowest = min(table[range(few), list(chosen)].sum() for chosen in permutations(range(many), few))
        assert costs[rows, columns].sum() == pytest.approx(lowest)
        assert len(set(rows)) == len(set(columns)) == few
        assert (np.diff(rows) > 0).all()


def test_costs_of_float32_and_of_any_order_in_memory_are_taken():
    costs = np.asfortranarray(np.array([[4, 1, 3], [2, 0, 5], [3, 2, 2]], np.float32))
    assert [one.tolist() for one in assigned(costs)] == [[0, 1, 2], [1, 0, 2]]


def test_nothing_has_no_partner():
    for shape in ((0, 3), (3, 0)):
        rows, columns = assigned(np.zeros(shape))
        assert len(rows) == len(columns) == 0


def test_hundreds_of_rows_are_assigned_at_the_lowest_cost():
    """Prices prove it: no pair costs less than both, and the assigned ones cost just that."""
    draw = np.random.default_rng(0)
    worth = draw.permutation(150)
    costs = draw.random((100, 150)) + 1.0
    costs[np.arange(100), worth[:100]] = 0.0  # the cheapest pairs are known
    rows, columns = assigned(costs)
    assert (columns == worth[:100]).all()
    assert (rows == np.arange(100)).all()
