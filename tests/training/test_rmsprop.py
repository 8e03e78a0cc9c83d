"""segatlas.training.rmsprop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from segatlas.config.schema import OptimizerConfig
from segatlas.training.optim import build_optimizer
from segatlas.training.rmsprop import RMSProp


def test_steps_follow_the_formula_number_by_number():
    parameter = nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
    optimizer = RMSProp([{"params": [parameter], "weight_decay": 0.1}], lr=0.01, alpha=0.9, epsilon=1e-6)
    expected, means = [3.0, -2.0], [0.0, 0.0]
    for gradients in ([0.5, -4.0], [-1.0, 1e-4], [2.0, 0.0]):
        parameter.grad = torch.tensor(gradients, dtype=torch.float64)
        optimizer.step()
        for index, gradient in enumerate(gradients):
            gradient += 0.1 * expected[index]
            means[index] = 0.9 * means[index] + 0.1 * gradient**2
            expected[index] -= 0.01 * gradient / math.sqrt(means[index] + 1e-6)
        assert parameter.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_constant_inside_the_root_keeps_steps_of_small_gradients_small():
    moved = []
    for kind, keys in ((RMSProp, {"epsilon": 1e-6}), (torch.optim.RMSprop, {"eps": 1e-6})):
        parameter = nn.Parameter(torch.zeros(1))
        optimizer = kind([parameter], lr=1.0, alpha=0.9, **keys)
        parameter.grad = torch.full((1,), 1e-6)
        optimizer.step()
        moved.append(-parameter.item())
    assert moved == pytest.approx([1e-3, 0.76], rel=0.01)


def test_it_minimises_computes_a_closure_and_takes_its_state_up_again():
    parameter = nn.Parameter(torch.tensor([4.0]))
    optimizer = build_optimizer(Holder(parameter), OptimizerConfig(name="rmsprop", weight_decay=0.0), 0.05)
    assert isinstance(optimizer, RMSProp)

    def closure():
        optimizer.zero_grad()
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(120)]
    assert losses[0] == 16
    assert losses[-1] < 0.1
    other = RMSProp([parameter], lr=0.05)
    other.load_state_dict(optimizer.state_dict())
    assert torch.equal(other.state[parameter]["mean_square"], optimizer.state[parameter]["mean_square"])
    assert (other.param_groups[0]["alpha"], other.param_groups[0]["epsilon"]) == (0.9, 1e-6)


class Holder(nn.Module):
    def __init__(self, parameter: nn.Parameter):
        super().__init__()
        self.parameter = parameter
