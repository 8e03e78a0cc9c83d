"""The global context block against a loop over its pixels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segatlas.build.network import create_model, shapes_only
from segatlas.errors import UsageError
from segatlas.models.gcnet import ARCHITECTURE, GlobalContextBlock

WAYS = [(True, False), (False, True), (True, True)]


@pytest.mark.parametrize(("add", "multiply"), WAYS)
def test_every_pixel_gets_the_transformed_mean_weighted_by_the_mask(add, multiply):
    torch.manual_seed(0)
    block = GlobalContextBlock(8, 3, add=add, multiply=multiply).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 8, 4, 5, dtype=torch.float64)
    for sample, got in zip(x, block(x).detach(), strict=True):
        pixels = [sample[:, row, column] for row in range(4) for column in range(5)]
        weights = [torch.exp(block.mask.weight.flatten() @ pixel + block.mask.bias).item() for pixel in pixels]
        context = sum(weight / sum(weights) * pixel for weight, pixel in zip(weights, pixels, strict=True))
        context = context[None, :, None, None]
        expected = sample
        if multiply:
            expected = expected * block.multiply(context)[0].sigmoid()
        if add:
            expected = expected + block.add(context)[0]
        torch.testing.assert_close(got, expected)


def test_a_new_block_that_adds_is_the_identity():
    block, x = GlobalContextBlock(8, 2, add=True, multiply=False), torch.randn(1, 8, 4, 4)
    assert torch.equal(block(x), x)


def test_a_context_that_goes_nowhere_is_refused():
    with pytest.raises(UsageError, match="channel_add and channel_mul are both off"):
        create_model("gcnet", num_classes=2, encoder="resnet18_w8", channel_add=False)


def test_the_published_network_has_its_number_of_parameters():
    with shapes_only():
        net = create_model("gcnet", num_classes=150, aux=True, **ARCHITECTURE.variants["gcnet_r50"])
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(49.73, abs=0.005)
