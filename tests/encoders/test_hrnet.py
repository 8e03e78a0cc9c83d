from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segatlas.build.network import shapes_only
from segatlas.encoders.hrnet import upsample_to
from segatlas.encoders.spec import create_encoder

PUBLISHED_MILLIONS = {"hrnet_w18_small": 3.86, "hrnet_w18": 9.56, "hrnet_w48": 65.33}
"""Of MMSegmentation's backbones."""


@pytest.mark.parametrize("name", PUBLISHED_MILLIONS)
def test_parameter_counts_are_the_published_ones(name):
    with shapes_only():
        encoder = create_encoder(name)
    millions = sum(p.numel() for p in encoder.parameters()) / 1e6
    assert millions == pytest.approx(PUBLISHED_MILLIONS[name], abs=0.005)


def test_it_is_timms_network_under_the_same_names_but_for_bilinear_upsampling():
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("hrnet_w18_small_v2").eval()
    for module in theirs.modules():
        if isinstance(module, nn.Upsample):
            module.mode = "bilinear"
    ours = create_encoder("hrnet_w18_small").eval()
    published = theirs.state_dict()
    ours.load_state_dict({name: published[name] for name in ours.state_dict()})
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for got, expected in zip(ours(x), maps_of(theirs, x), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def maps_of(net, x):
    """The maps before timm's classification head."""
    x = net.act1(net.bn1(net.conv1(x)))
    return net.stages(net.act2(net.bn2(net.conv2(x))))


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (65, 129)])
def test_the_maps_of_any_size_are_rounded_up(size):
    encoder = create_encoder("hrnet_w8_small").eval()
    with torch.no_grad():
        maps = encoder(torch.randn(1, 3, *size))
    assert [tuple(x.shape[-2:]) for x in maps] == [tuple(-(-n // s) for n in size) for s in encoder.strides]


def test_a_coarse_map_is_upsampled_by_its_whole_factor_before_it_is_cut_to_size():
    x = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(x, size=(12, 16), mode="bilinear")
    assert torch.equal(upsample_to(x, 4, (12, 16)), whole)
    assert torch.equal(upsample_to(x, 4, (10, 13)), F.interpolate(whole, size=(10, 13), mode="bilinear"))
    assert upsample_to(x, 1, (3, 4)) is x
