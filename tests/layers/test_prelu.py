"""segatlas.layers.prelu."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segatlas.layers.prelu import PReLU


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("slopes", [1, 6])
def test_values_and_gradients_are_those_of_torch(slopes, layout):
    torch.manual_seed(0)
    given = torch.randn(2, 6, 5, 7, dtype=torch.float64).contiguous(memory_format=layout)
    given[0, 0, 0, 0] = 0.0
    wanted = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    found = []
    for kind in (nn.PReLU, PReLU):
        layer, x = kind(slopes).double(), given.clone().requires_grad_()
        nn.init.uniform_(layer.weight, -0.5, 1.0, generator=torch.Generator().manual_seed(1))
        out = layer(x)
        out.backward(wanted)
        found.append((out, x.grad, layer.weight.grad))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 6), (3, 6, 2)])
def test_it_takes_what_torchs_takes(shape):
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    layer = PReLU(6).double()
    assert torch.autograd.gradcheck(lambda x, slopes: torch.func.functional_call(layer, {"weight": slopes}, x),
                                    (x, layer.weight))  # fmt: skip


@pytest.mark.parametrize("given", [torch.bfloat16, torch.float32])
def test_mixed_precision_has_torchs_type_and_slopes_gather_in_float32(given):
    layer = PReLU(2)
    x = torch.full((1, 2, 64, 64), -1.0, dtype=given, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, theirs = layer(x), nn.PReLU(2)(x)
    out.backward(torch.ones_like(out))
    assert (out.dtype, x.grad.dtype) == (theirs.dtype, given)
    assert layer.weight.grad.tolist() == [-4096.0, -4096.0]  # in bf16 a sum of ones stops at 256


def test_without_gradients_it_is_torchs_layer():
    with torch.no_grad():
        assert torch.equal(
            PReLU(3)(torch.arange(-3.0, 3.0).view(1, 3, 2)), nn.PReLU(3)(torch.arange(-3.0, 3.0).view(1, 3, 2))
        )
