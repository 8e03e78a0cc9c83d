"""The frame of dense networks, and the one place where plain fields become a config."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segatlas.encoders.spec import EncoderSpec
from segatlas.models import ARCHITECTURES
from segatlas.models.architecture import flat_fields, plain_fields
from segatlas.models.dense import DenseNetwork, HeadConfig
from segatlas.models.reading import load_architecture, read_config

TINY = {"num_classes": 3, "encoder": EncoderSpec(name="resnet18_w8", output_stride=16)}


class Plain(DenseNetwork):
    """The smallest that there is: a convolution of the last map."""

    def __init__(self, config: HeadConfig):
        super().__init__(config)
        self.conv = nn.Conv2d(self.encoder.channels[-1], config.channels, 1)
        self.add_classifier(config, config.channels, self.conv)

    def decode(self, features):
        """Map the last map to D channels."""
        return self.conv(features[-1])


class Named(Plain):
    """Its own classify and auxiliary logits."""

    def classify(self, x):
        """Double the logits."""
        return 2 * super().classify(x)

    def aux(self, features):
        """Give a map under a name of its own."""
        return {"own": features[0]}


def test_a_network_that_writes_decode_alone_trains_and_predicts():
    net = Plain(HeadConfig(**TINY, channels=8, aux=True, align_corners=True, dropout=0.5))
    x = torch.randn(2, 3, 33, 49)
    out = net.train()(x)
    assert (out.logits.shape, out.canvas, out.aux["fcn"].shape) == ((2, 3, 3, 4), (33, 49), (2, 3, 3, 4))
    assert out.resample.align_corners
    net.eval()
    assert net(x).aux == {}
    assert torch.equal(net(x).logits, net.classifier(net.decode(net.encoder(x))))


def test_classify_and_aux_may_be_its_own():
    torch.manual_seed(0)
    config = HeadConfig(**TINY, channels=8)
    named, plain = Named(config), Plain(config)
    plain.load_state_dict(named.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(named.eval()(x).logits, 2 * plain.eval()(x).logits)
    assert list(named.train()(x).aux) == ["own"]
    assert named.eval()(x).aux == {}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_config_is_read_back_from_its_own_plain_fields(name):
    record = load_architecture(name)
    config, problems = read_config(record, {"num_classes": 3, **record.tiny})
    assert problems == []
    assert read_config(record, plain_fields(config), strict=True) == (config, [])
    assert all(not isinstance(value, dict) for value in flat_fields(config).values())


def test_fields_lie_over_a_variant_and_a_variant_over_the_defaults():
    record = load_architecture("deeplabv3plus")

    def encoder(**fields):
        config, problems = read_config(record, {"num_classes": 2, **fields}, variant="deeplabv3plus_r34_smp")
        assert problems == []
        return config.encoder

    smp = EncoderSpec.of("resnet34", output_stride=16, contract_dilation=False)
    assert encoder() == smp
    assert encoder(encoder="resnet50") == EncoderSpec.of("resnet50", output_stride=16, contract_dilation=False)
    assert encoder(output_stride=8, encoder={"multi_grid": [1, 2, 4]}) == EncoderSpec.of(
        "resnet34", output_stride=8, contract_dilation=False, multi_grid=[1, 2, 4]
    )
    assert encoder(encoder="mobilenet_v2") == EncoderSpec(name="mobilenet_v2", output_stride=16)
    assert encoder(encoder=smp, output_stride=16) == smp


def test_all_faults_of_a_network_are_told_at_once_with_their_keys():
    fields = {"encoder": {"name": "resnet50", "multi_gird": 1}, "output_stride": 7, "dropuot": 0, "rates": "x"}
    config, problems = read_config(load_architecture("deeplabv3"), {"num_classes": 2, **fields}, strict=True)
    assert config is None
    assert [p.key for p in problems] == ["encoder.output_stride", "encoder.multi_gird", "rates", "dropuot"]
