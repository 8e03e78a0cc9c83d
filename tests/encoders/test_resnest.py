"""segatlas.encoders.resnest."""

from __future__ import annotations

import pytest
import timm
import torch

from segatlas.build.network import build_network, make_config, shapes_only
from segatlas.encoders.resnest import SplitAttention
from segatlas.encoders.spec import create_encoder
from segatlas.inference.fast_form import fast_form
from segatlas.structures import InputSpec


def test_without_dilation_the_numbers_are_timms():
    torch.manual_seed(0)
    theirs = timm.create_model("resnest50d", features_only=True).eval()
    ours = create_encoder("resnest50").eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        for got, expected in zip(ours(x), theirs(x), strict=True):
            assert torch.allclose(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(("name", "millions"), [("resnest50", 25.43), ("resnest101", 46.23), ("resnest200", 68.15)])
def test_parameters_are_those_of_the_published_networks_without_their_classifier(name, millions):
    with shapes_only():
        encoder = create_encoder(name)
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_split_attention_is_a_softmax_over_two_maps():
    torch.manual_seed(0)
    block = SplitAttention(8, dilation=2).eval()
    x = torch.randn(2, 8, 6, 5)
    with torch.no_grad():
        both = block.bn0(block.conv(x)).relu()
        first, second = both[:, :8], both[:, 8:]
        scores = block.fc2(block.bn1(block.fc1((first + second).mean((2, 3), keepdim=True))).relu())
        fraction = scores[:, :8].exp() / (scores[:, :8].exp() + scores[:, 8:].exp())
        assert torch.allclose(block(x), fraction * first + (1 - fraction) * second, atol=1e-5)


def test_at_stride_8_the_last_layers_dilate_and_do_not_average():
    encoder = create_encoder("resnest50", output_stride=8)
    assert encoder.strides == (2, 4, 8, 8, 8)
    assert encoder.layer4[0].average is None
    assert encoder.layer4[1].conv2.conv.dilation == (4, 4)


def test_in_fp32_its_predictions_keep_the_published_order_of_operations():
    net = build_network(*make_config("fcn", {"num_classes": 3, "encoder": "resnest50", "channels": 8})).eval()
    assert fast_form(net, (InputSpec(),)) is net
