from __future__ import annotations

import pytest
import torch

from segatlas.ops.labels import PIECE
from segatlas.ops.selection import kth_smallest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 7, PIECE + 5])
def test_it_is_the_number_at_that_place_of_the_sorted_ones(dtype, count):
    values = torch.rand(count, generator=torch.Generator().manual_seed(0)).to(dtype) ** 7
    ordered = values.sort().values
    for k in {1, (count + 1) // 2, count}:
        assert torch.equal(kth_smallest(values, k), ordered[k - 1])


def test_equal_numbers_zeros_and_infinities_keep_their_places():
    values = torch.tensor([[0.5, 0.0, torch.inf], [0.5, 0.0, 1e-40]])
    found = [kth_smallest(values, k).item() for k in range(1, 7)]
    assert found == values.flatten().sort().values.tolist()


def test_numbers_that_differ_in_the_last_bit_are_told_apart():
    low = torch.tensor(0.7)
    high = torch.nextafter(low, torch.tensor(1.0))
    values = torch.stack([high, low, high])
    assert [kth_smallest(values, k).item() for k in (1, 2, 3)] == [low.item(), high.item(), high.item()]
