"""segatlas.training.muon."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segatlas.build.network import create_model
from segatlas.config.schema import OptimizerConfig
from segatlas.models.reading import load_architecture
from segatlas.training.muon import Muon, hidden_weights, orthogonal
from segatlas.training.optim import build_optimizer, parameter_groups


@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (32, 32), (8, 1000)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    generator = torch.Generator().manual_seed(0)
    u, s, v = torch.linalg.svd(torch.randn(shape, generator=generator, dtype=torch.float64), full_matrices=False)
    s = torch.logspace(0, -2, len(s), dtype=torch.float64)
    result = orthogonal((u * s) @ v)
    values = u.T @ result @ v.T
    assert (values - values.diag().diag()).abs().max() < 1e-8
    assert 0.6 < values.diag().min() <= values.diag().max() < 1.25


def test_a_matrix_of_zeros_stays_and_a_scale_changes_nothing():
    assert torch.equal(orthogonal(torch.zeros(4, 9)), torch.zeros(4, 9))
    matrix = torch.randn(16, 40, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(orthogonal(matrix * 1e-6), orthogonal(matrix), atol=1e-4)


@pytest.mark.parametrize("scale", [1e-14, 1e-25, 1e-38])
def test_a_matrix_of_next_to_nothing_is_not_enlarged(scale):
    result = orthogonal(scale * torch.randn(16, 40, generator=torch.Generator().manual_seed(1)))
    assert result.isfinite().all()
    assert result.abs().max() < 1e-2


def test_a_weight_whose_gradient_is_zero_stays_where_it_is():
    layer = nn.Linear(16, 16, bias=False)
    optimizer = build_optimizer(layer, OptimizerConfig(name="muon", weight_decay=0.0), 0.01)
    layer.weight.grad = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    moved = layer.weight.detach().clone()
    layer.weight.grad = torch.zeros(16, 16)
    for _ in range(600):
        optimizer.step()
    assert torch.equal(layer.weight, moved)


def test_a_linear_layer_is_stepped_as_by_torch_s_own_muon():
    weight = torch.randn(12, 30, generator=torch.Generator().manual_seed(2))
    ours, theirs = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    groups = [{"params": [ours], "orthogonal": True, "weight_decay": 0.1}]
    keys = {"weight_decay": 0.1, "momentum": 0.9, "nesterov": True, "adjust_lr_fn": "match_rms_adamw"}
    one, other = Muon(groups, lr=0.02, momentum=0.9), torch.optim.Muon([theirs], lr=0.02, **keys)
    for seed in range(4):
        gradient = torch.randn(12, 30, generator=torch.Generator().manual_seed(seed))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        one.step()
        other.step()
    moved = (theirs - weight).norm()
    assert (ours - theirs).norm() < 0.05 * moved  # torch's runs in bfloat16, and its momentum is a running mean


def test_what_is_no_hidden_weight_is_stepped_as_by_adamw():
    values = torch.randn(7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ours, theirs = nn.Parameter(values.clone()), nn.Parameter(values.clone())
    one = Muon([{"params": [ours], "weight_decay": 0.1}], lr=0.01, betas=(0.9, 0.95))
    other = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    for seed in range(5):
        gradient = torch.randn(7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        one.step()
        other.step()
    assert torch.allclose(ours, theirs, rtol=1e-10)


def test_hidden_weights_are_those_between_features():
    net = create_model("unet", encoder="resnet18_w32", num_classes=9)
    found = hidden_weights(net)
    names = {name for name, parameter in net.named_parameters() if id(parameter) in found}
    assert all(net.get_parameter(name).ndim == 4 for name in names)
    assert not any(name.startswith("classifier") or net.get_parameter(name).shape[1] == 3 for name in names)
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    assert len(names) == len(convolutions) - 2  # the first one, and the classifier
    depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 16, 1), nn.LayerNorm(16))
    assert hidden_weights(depthwise) == {id(depthwise[1].weight)}


@pytest.mark.parametrize("name", ["lraspp", "fcn_skips", "ddrnet"])
def test_parts_of_classifiers_and_auxiliary_heads_are_none(name):
    net = create_model(name, **{**load_architecture(name).tiny, "num_classes": 37})
    found = hidden_weights(net)
    hidden = [key for key, parameter in net.named_parameters() if id(parameter) in found]
    assert hidden
    assert not any(part.startswith(("classifier", "aux")) for key in hidden for part in key.split("."))


def test_groups_hold_one_kind_and_other_optimisers_know_none():
    net = create_model("unet", encoder="resnet18_w32", num_classes=3)
    groups = parameter_groups(net, OptimizerConfig(name="muon", encoder_lr_factor=0.5), 0.1)
    found = hidden_weights(net)
    assert all({id(p) in found for p in group["params"]} == {group["orthogonal"]} for group in groups)
    assert not any("orthogonal" in group for group in parameter_groups(net, OptimizerConfig(), 0.1))


def test_it_takes_its_state_up_again():
    def trained(steps, *, cut):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 1))
        optimizer = build_optimizer(net, OptimizerConfig(name="muon"), 0.01)
        for step in range(steps):
            if step == cut:
                state = optimizer.state_dict()
                optimizer = build_optimizer(net, OptimizerConfig(name="muon"), 0.01)
                optimizer.load_state_dict(state)
            optimizer.zero_grad()
            net(torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(step))).square().mean().backward()
            optimizer.step()
        return [p.detach().clone() for p in net.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(trained(6, cut=3), trained(6, cut=None), strict=True))
