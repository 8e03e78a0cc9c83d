"""segatlas.layers.strided."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from segatlas.build.network import create_model
from segatlas.config.schema import TrainConfig
from segatlas.inference.fast_form import fast_form
from segatlas.layers.strided import StridedPointwise, hold_strided_pointwise
from segatlas.structures import InputSpec
from segatlas.training.freezing import training_mode

LAST = torch.channels_last


@pytest.mark.parametrize(
    ("channels", "stride", "size"), [(8, 2, (64, 64)), (3, 2, (33, 44)), (12, 4, (64, 50)), (8, (1, 2), (64, 64))]
)
def test_gradients_are_those_of_float64(channels, stride, size):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, 5, 1, stride)
    exact = copy.deepcopy(conv).double()
    x = torch.randn(2, channels, *size)
    net = nn.Sequential(conv).to(memory_format=LAST)
    hold_strided_pointwise(net)
    inputs, precise = x.to(memory_format=LAST).requires_grad_(), x.double().requires_grad_()
    out, wanted = net(inputs), exact(precise)
    given = torch.randn(out.shape)
    out.backward(given.to(memory_format=LAST))
    wanted.backward(given.double())
    pairs = [(out, wanted), (inputs.grad, precise.grad), (conv.weight.grad, exact.weight.grad)]
    pairs.append((conv.bias.grad, exact.bias.grad))
    for found, expected in pairs:
        assert found.shape == expected.shape
        assert (found - expected.float()).abs().max() < 1e-5 * expected.abs().max()


def test_training_holds_those_of_narrow_encoders_and_prediction_still_folds_their_norms():
    net = create_model("unet", num_classes=2, encoder="resnet18_w8", decoder_channels=[8, 8])
    training_mode(net, TrainConfig())
    held = [module for module in net.modules() if isinstance(module, StridedPointwise)]
    assert [conv.in_channels for conv in held] == [8]
    net.eval()
    fast = fast_form(net, (InputSpec(name="image", kind="image"),))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())


def test_others_stay_as_they_are():
    net = nn.Sequential(nn.Conv2d(16, 4, 1, 2), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, 2), nn.Conv2d(4, 4, 1, 2, 1))
    hold_strided_pointwise(net)
    assert {type(module) for module in net} == {nn.Conv2d}
