"""segatlas.layers.grouped."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from segatlas.build.network import create_model
from segatlas.config.schema import TrainConfig
from segatlas.inference.fast_form import fast_form
from segatlas.layers.grouped import DilatedGroups, hold_dilated_groups
from segatlas.models.lmffnet import ARCHITECTURE
from segatlas.structures import InputSpec
from segatlas.training.freezing import training_mode

LAST = torch.channels_last


@pytest.mark.parametrize(("channels", "groups", "dilation"), [(16, 16, 2), (32, 32, 16), (16, 4, 4)])
def test_gradients_in_bf16_are_those_of_float64(channels, groups, dilation):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, groups=groups, bias=False)
    exact = copy.deepcopy(conv).double()
    x, given = torch.randn(2, channels, 33, 44), torch.randn(2, channels, 33, 44)
    exact(x.double()).backward(given.double())
    net = nn.Sequential(conv).to(memory_format=LAST)
    hold_dilated_groups(net)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = net(x.to(memory_format=LAST).bfloat16().requires_grad_())
    out.backward(given.bfloat16().to(memory_format=LAST))
    assert out.dtype == torch.bfloat16
    wanted = exact.weight.grad.float()
    assert (conv.weight.grad - wanted).abs().max() < 0.02 * wanted.abs().max()


def test_training_holds_them_and_prediction_still_folds_their_norms():
    torch.manual_seed(0)
    net = create_model("lmffnet", num_classes=3, **ARCHITECTURE.tiny)
    training_mode(net, TrainConfig())
    held = [module for module in net.modules() if isinstance(module, DilatedGroups)]
    assert len(held) == 3  # the far half of each block
    assert all(block.far[0] in held for block in (*net.encoder.level4.blocks, *net.encoder.level8.blocks))
    fast = fast_form(net.eval(), (InputSpec(name="image", kind="image"),))
    folded = [type(block.far[1][0]) for block in fast.encoder.level8.blocks]
    assert folded == [nn.Identity] * 2


def test_others_stay_as_they_are():
    net = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3, dilation=2), nn.Conv2d(4, 4, 1))
    hold_dilated_groups(net)
    assert {type(module) for module in net} == {nn.Conv2d}
