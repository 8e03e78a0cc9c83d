from __future__ import annotations

import pytest
import torch

from segatlas.build.network import create_model, shapes_only
from segatlas.models.linknet import ARCHITECTURE


def test_variants_have_as_many_parameters_as_segmentation_models_pytorch():
    with shapes_only():
        net = create_model("linknet_r34", num_classes=150)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(21.78, abs=0.005)


def test_each_step_adds_the_encoders_map_to_what_it_doubled():
    torch.manual_seed(0)
    net = create_model("linknet", num_classes=3, **ARCHITECTURE.tiny).eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        *skips, y = net.encoder(x)
        for step in net.decoder:
            y = step.widen(step.up(step.narrow(y)))
            y = y + skips.pop() if skips else y
        assert torch.equal(net(x).logits, net.classifier(y))


def test_where_the_encoder_has_no_map_a_step_keeps_the_width():
    net = create_model("linknet", num_classes=3, encoder="mit_b0", channels=8).eval()
    assert [step.widen.conv.out_channels for step in net.decoder] == [160, 64, 32, 32, 8]
    assert net(torch.randn(1, 3, 33, 65)).logits.shape == (1, 3, 64, 96)
