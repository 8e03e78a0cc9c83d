"""Interlaced attention against plain attention over the pixels that it should reach."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.models.isanet import ARCHITECTURE, InterlacedAttention

TILE = (3, 2)


def attention_of():
    torch.manual_seed(0)
    attention = InterlacedAttention(6, 4, TILE).double().eval()
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.7)
    return attention


def masked(part, x, group):
    """Attention over a whole map (N, D, h, w) in which a pixel sees those of its own `group` (h w) only."""
    query, key, value = (layer(x).flatten(2).transpose(1, 2) for layer in (part.query, part.key, part.value))
    products = query @ key.transpose(1, 2) * query.shape[-1] ** -0.5
    products = products.masked_fill(group[:, None] != group[None], -torch.inf)
    out = (products.softmax(dim=-1) @ value).transpose(1, 2).unflatten(2, x.shape[-2:])
    return part.out(out)


def written_out(attention, x):
    height, width = x.shape[-2:]
    grow_h, grow_w = -height % TILE[0], -width % TILE[1]
    x = F.pad(x, (grow_w // 2, grow_w - grow_w // 2, grow_h // 2, grow_h - grow_h // 2))
    rows = torch.arange(x.shape[2])[:, None].expand(x.shape[2:]).flatten()
    columns = torch.arange(x.shape[3])[None].expand(x.shape[2:]).flatten()
    same_place = rows % TILE[0] * 100 + columns % TILE[1]
    same_tile = rows // TILE[0] * 100 + columns // TILE[1]
    x = masked(attention.near, masked(attention.far, x, same_place), same_tile)
    return x[:, :, grow_h // 2 :, grow_w // 2 :][:, :, :height, :width]


@pytest.mark.parametrize("size", [(9, 8), (7, 5), (1, 1), (2, 9)])
def test_both_steps_equal_full_attention_with_all_other_pixels_masked(size):
    attention = attention_of()
    x = torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True)
    got, expected = attention(x), written_out(attention, x)
    assert got.shape == x.shape
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    inputs, upstream = [x, *attention.parameters()], torch.randn_like(got)
    ours, slow = (torch.autograd.grad(out, inputs, upstream) for out in (got, expected))
    for one, other in zip(ours, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_after_both_steps_every_pixel_depends_on_every_other():
    attention, x = attention_of(), torch.randn(1, 6, 6, 4, dtype=torch.float64, requires_grad=True)
    for row, column in ((0, 0), (5, 1), (2, 3)):
        (gradient,) = torch.autograd.grad(attention(x)[:, :, row, column].square().sum(), x)
        assert gradient.abs().sum(dim=1).gt(0).all()


def test_the_published_network_has_its_number_of_parameters():
    with shapes_only():
        net = create_model("isanet", num_classes=150, aux=True, **ARCHITECTURE.variants["isanet_r50"])
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(37.81, abs=0.005)
