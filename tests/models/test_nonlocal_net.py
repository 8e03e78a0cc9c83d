"""The non-local block against all pairs of pixels written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segatlas.build.network import create_model, shapes_only
from segatlas.models.nonlocal_net import ARCHITECTURE

MODES = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")


def block_of(mode, *, width=8, reduction=2, **fields):
    torch.manual_seed(0)
    fields |= {"mode": mode, "reduction": reduction}
    net = create_model("nonlocal_net", num_classes=3, encoder="resnet18_w8", channels=width, **fields)
    block = net.block.double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.7)
    nn.init.uniform_(block.bn.running_var, 0.5, 2)
    return block


def written_out(block, x, mode, *, scale):
    """Return the block's output by the paper's formula, with the matrix of all pairs."""
    query, key, value = (part(x).flatten(2).transpose(1, 2) for part in (block.theta, block.phi, block.g))
    products = query @ key.transpose(1, 2)
    pixels = products.shape[-1]
    if mode == "concatenation":
        pairs = torch.cat([torch.broadcast_tensors(query[:, :, None], key[:, None])[i] for i in range(2)], dim=-1)
        weights = (pairs @ block.mean.project.weight.flatten()).relu() / pixels
    else:
        weights = products / pixels if mode == "dot_product" else (products * scale).softmax(dim=-1)
    y = (weights @ value).transpose(1, 2).unflatten(2, x.shape[-2:])
    return x + block.bn(block.conv(y))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("use_scale", [True, False])
def test_every_way_of_comparing_equals_the_matrix_of_all_pairs_with_its_gradients(mode, use_scale):
    block = block_of(mode, use_scale=use_scale)
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64, requires_grad=True)
    inputs = [x, *block.parameters()]
    got = block(x)
    expected = written_out(block, x, mode, scale=4**-0.5 if use_scale and mode != "gaussian" else 1.0)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    upstream = torch.randn_like(got)
    ours, slow = (torch.autograd.grad(out, inputs, upstream) for out in (got, expected))
    for one, other in zip(ours, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shift", [-100.0, 100.0])
def test_concatenation_handles_pairs_that_are_all_on_one_side_of_the_relu(shift):
    block = block_of("concatenation")
    nn.init.constant_(block.theta.bias, shift)
    nn.init.ones_(block.mean.project.weight)
    x = torch.randn(1, 8, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        expected = written_out(block, x, "concatenation", scale=1.0)
        torch.testing.assert_close(block(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_no_tensor_of_all_pairs_of_pixels_is_made(mode):
    block = block_of(mode)
    pixels = 24 * 25
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            largest = max(largest, *(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor)), 0)
            return out

    x = torch.randn(1, 8, 24, 25, dtype=torch.float64, requires_grad=True)
    with Watch():
        block(x).sum().backward()
    assert largest < pixels**2 / 4


def test_a_new_block_is_the_identity():
    net = create_model("nonlocal_net", num_classes=3, encoder="resnet18_w8", channels=8).eval()
    x = torch.randn(1, 8, 5, 7)
    with torch.no_grad():
        assert torch.equal(net.block(x), x)


def test_the_published_network_has_its_number_of_parameters():
    with shapes_only():
        net = create_model("nonlocal_net", num_classes=150, aux=True, **ARCHITECTURE.variants["nonlocal_r50"])
    assert sum(p.numel() for p in net.parameters()) == 50_124_684
    assert net.encoder.strides[-1] == 8
