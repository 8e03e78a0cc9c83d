from __future__ import annotations

import pytest
import torch

from segatlas.build.network import create_model, shapes_only
from segatlas.models.pspnet import ARCHITECTURE


def test_r50_has_the_published_number_of_parameters_for_150_classes():
    with shapes_only():
        net = create_model("pspnet", num_classes=150, aux=True, **ARCHITECTURE.variants["pspnet_r50"])
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(49.08, abs=0.005)
    assert sum(p.numel() for p in net.aux_head.parameters()) / 1e6 == pytest.approx(2.40, abs=0.005)


def test_pool_scales_are_settings():
    net = create_model("pspnet", num_classes=3, **{**ARCHITECTURE.tiny, "pool_scales": (1, 4)}).eval()
    assert net.ppm.fuse.conv.in_channels == net.encoder.channels[-1] + 2 * 8
    assert net(torch.randn(1, 3, 33, 47)).logits.shape == (1, 3, 5, 6)


def test_align_corners_is_how_pooled_maps_and_logits_are_upsampled():
    torch.manual_seed(0)
    fields = {"num_classes": 3, **ARCHITECTURE.tiny}
    nets = [create_model("pspnet", **fields, align_corners=flag).eval() for flag in (False, True)]
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.randn(1, 3, 65, 129)
    outs = [net(x) for net in nets]
    assert [out.resample.align_corners for out in outs] == [False, True]
    assert not torch.allclose(outs[0].logits, outs[1].logits)
