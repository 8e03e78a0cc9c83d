"""segatlas.models.ddrnet."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segatlas.build.network import build_empty, make_config
from segatlas.layers.pooled_scales import WINDOWS, PooledScales
from segatlas.models.reading import load_architecture


@pytest.mark.parametrize(("name", "millions"), [("ddrnet_23_slim", 5.69), ("ddrnet_23", 20.15)])
def test_parameters_are_those_of_the_published_networks(name, millions):
    net = build_empty(*make_config(name, {"num_classes": 19}))
    assert sum(parameter.numel() for parameter in net.parameters()) == pytest.approx(millions * 1e6, abs=2e4)


def test_the_head_on_the_detailed_branch_is_at_stride_8_and_trains_alone():
    architecture, config = make_config("ddrnet", {"num_classes": 5, **load_architecture("ddrnet").tiny})
    net = architecture.build(config)
    out = net.train()(torch.randn(1, 3, 61, 93))
    assert out.canvas == (64, 96)
    assert {name: tuple(logits.shape) for name, logits in out.aux.items()} == {"detail": (1, 5, 8, 12)}
    assert out.logits.shape == (1, 5, 8, 12)
    assert not net.eval()(torch.randn(1, 3, 64, 96)).aux


def test_scales_are_averages_over_windows_around_every_stride_th_place():
    torch.manual_seed(0)
    pools, x = PooledScales(2, 2).eval(), torch.randn(1, 2, 11, 20)
    for scale in pools.scales:  # each a plain copy of its average
        nn.init.dirac_(scale.conv.weight)
        scale.relu = nn.Identity()
    padded = nn.functional.pad(x, (8, 8, 8, 8))
    for (size, stride), found in zip(WINDOWS, pools(x)[1:-1], strict=True):
        first = 8 - size // 2
        expected = padded[:, :, first : first + size, first : first + size].mean((2, 3))
        upsampled = nn.functional.avg_pool2d(x, size, stride, size // 2)
        assert torch.allclose(upsampled[:, :, 0, 0], expected, atol=1e-6)
        resized = nn.functional.interpolate(upsampled / (1 + 1e-5) ** 0.5, size=(11, 20), mode="bilinear")
        assert torch.allclose(found, resized, atol=1e-6)
