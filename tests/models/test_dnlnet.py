"""The disentangled block against its two parts written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segatlas.build.network import create_model, shapes_only
from segatlas.models.dnlnet import ARCHITECTURE


def block_of(**fields):
    torch.manual_seed(0)
    block = create_model("dnlnet", num_classes=3, encoder="resnet18_w8", channels=8, **fields).block.double().eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def written_out(block, x, scale):
    """The paper's formula with the matrix of all pairs: the likeness of whitened features, plus the saliency."""
    query, key, value = (part(x).flatten(2).transpose(1, 2) for part in (block.theta, block.phi, block.g))
    query, key = (tokens - tokens.mean(dim=1, keepdim=True) for tokens in (query, key))
    alike = (query @ key.transpose(1, 2) * scale).softmax(dim=-1)
    salient = block.saliency(x).flatten(2).softmax(dim=-1)  # one row for all pixels
    y = ((alike + salient) @ value).transpose(1, 2).unflatten(2, x.shape[-2:])
    return x + block.bn(block.conv(y))


@pytest.mark.parametrize(
    ("fields", "scale"),
    [({}, 4**-0.5 / 0.05), ({"use_scale": False}, 20.0), ({"temperature": 2.0, "reduction": 4}, 2**-0.5 / 2)],
)
def test_the_block_equals_the_matrix_of_all_pairs_with_its_gradients(fields, scale):
    block = block_of(**fields)
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64, requires_grad=True)
    got, expected = block(x), written_out(block, x, scale)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    inputs, upstream = [x, *block.parameters()], torch.randn_like(got)
    ours, slow = (torch.autograd.grad(out, inputs, upstream) for out in (got, expected))
    for one, other in zip(ours, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_new_block_is_the_identity():
    net = create_model("dnlnet", num_classes=3, encoder="resnet18_w8", channels=8).eval()
    x = torch.randn(1, 8, 5, 7)
    with torch.no_grad():
        assert torch.equal(net.block(x), x)


def test_the_published_network_has_its_number_of_parameters():
    with shapes_only():
        net = create_model("dnlnet", num_classes=150, aux=True, **ARCHITECTURE.variants["dnl_r50"])
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(50.13, abs=0.005)
