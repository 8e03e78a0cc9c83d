"""segatlas.models.lraspp."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import build_empty, build_network, make_config


def test_parameters_are_those_of_the_published_network():
    net = build_empty(*make_config("lraspp_mobilenet_v3_large", {"num_classes": 21}))
    assert sum(parameter.numel() for parameter in net.parameters()) == pytest.approx(3.22e6, abs=5e3)


def test_logits_are_the_sum_of_a_fine_map_and_an_upsampled_deep_map_classified():
    torch.manual_seed(0)
    fields = {"num_classes": 5, "encoder": "resnet18_w8", "output_stride": 16, "channels": 8}
    net = build_network(*make_config("lraspp", fields)).eval()
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        features = net.encoder(x)
        fine, deep = features[-3], features[-1]
        weighted = net.conv(deep) * net.gate(deep.mean((2, 3), keepdim=True)).sigmoid()
        upsampled = F.interpolate(weighted, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        expected = net.classifier.low(fine) + net.classifier.high(upsampled)
        assert torch.allclose(net(x).logits, expected, atol=1e-5)
