from __future__ import annotations

import torch

import profile_network


def test_fractions_are_of_each_operation_and_the_largest_comes_first() -> None:
    lines = profile_network.fractions(torch.nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 16, 16), 1)
    fractions = [float(line.split("%")[0]) for line in lines]
    assert fractions == sorted(fractions, reverse=True)
    assert 80 < sum(fractions) <= 101
    assert any("conv" in line for line in lines)
