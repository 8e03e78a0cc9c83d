from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model
from segatlas.models.upernet import ARCHITECTURE


@pytest.mark.parametrize(("aux", "millions"), [(True, 66.52), (False, 64.12)])
def test_it_has_the_published_number_of_parameters_for_150_classes(aux, millions):
    with torch.device("meta"):
        net = create_model("upernet", num_classes=150, aux=aux)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_decoder_equals_the_one_that_upsamples_and_concatenates_with_its_gradients(align_corners, training):
    torch.manual_seed(0)
    fields = {**ARCHITECTURE.tiny, "pool_scales": (1, 3)}
    net = create_model("upernet", num_classes=3, align_corners=align_corners, **fields).train(training)
    sizes = ((17, 23), (9, 12), (5, 6), (3, 3))
    features = [torch.randn(2, c, *s, requires_grad=True) for c, s in zip((8, 16, 32, 64), sizes, strict=True)]

    def up(x, size):
        return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)

    def block(part, x):
        return F.relu(part.bn(part.conv(x)))

    pooled = [block(conv, F.adaptive_avg_pool2d(features[3], s)) for conv, s in zip(net.ppm.pools, (1, 3), strict=True)]
    top = block(net.ppm.fuse, torch.cat([features[3], *(up(x, sizes[3]) for x in pooled)], dim=1))
    levels = [top]
    for i in (2, 1, 0):
        levels.insert(0, block(net.lateral[i], features[i]) + up(levels[0], sizes[i]))
    outputs = [block(conv, x) for conv, x in zip(net.output, levels[:3], strict=True)] + [top]
    expected = block(net.fuse, torch.cat([up(x, sizes[0]) for x in outputs], dim=1))

    got = net.decode(features)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    wrt = [*features, net.fuse.conv.weight, net.ppm.fuse.conv.weight]
    upstream = torch.randn_like(expected)
    slow = torch.autograd.grad(expected, wrt, upstream, retain_graph=True)
    for ours, theirs in zip(torch.autograd.grad(got, wrt, upstream), slow, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("encoder", ["resnet18_w8", "hrnet_w8_small", "mit_b0"])
def test_any_encoder_of_four_levels_will_do(encoder):
    net = create_model("upernet", num_classes=3, encoder=encoder, channels=8).eval()
    with torch.no_grad():
        assert net(torch.randn(1, 3, 33, 47)).logits.shape == (1, 3, 9, 12)
