"""The control is the same network, narrower everywhere, at the cost that was asked."""

from __future__ import annotations

import pytest
import torch

from segatlas.bench.subjects import count_flops
from segatlas.build.network import create_model
from segatlas.encoders.resnet import width_of
from segatlas.errors import UsageError
from segatlas.pruning import narrower
from segatlas.recipe import Config

SIZE = (64, 96)


def macs(net) -> int:
    return count_flops(net, torch.zeros(1, 3, *SIZE, device="meta")) // 2


@pytest.fixture(scope="module")
def unet():
    return create_model("unet", encoder="resnet18", decoder_channels=(64, 48, 32, 16), num_classes=3)


@pytest.mark.slow
def test_its_words_make_a_recipe_train_a_network_of_that_cost(unet):
    whole = macs(unet)
    found = narrower("unet", unet.config, whole // 2, SIZE)
    config = Config.load({"model": {"name": "unet", "encoder": "resnet18"}}, *found.words())
    net = create_model("unet", num_classes=3, **config.model.architecture_fields())
    assert macs(net) == found.macs
    assert abs(found.macs / whole - 0.5) < 0.01
    width = width_of(net.config.encoder)
    assert 42 <= width <= 48
    assert all(
        abs(c / w - width / 64) < 0.05 for c, w in zip(net.config.decoder_channels, (64, 48, 32, 16), strict=True)
    )
    assert net.encoder.channels == tuple(width * factor for factor in (1, 1, 2, 4, 8))


def test_all_widths_go_down_in_multiples_that_group_norms_take_and_layers_that_stay_are_named():
    net = create_model("fpn", encoder="resnet18_w32", pyramid_channels=32, channels=32, groups=8, num_classes=3)
    found = narrower("fpn", net.config, macs(net) // 2, SIZE)
    assert found.fields["pyramid_channels"] == found.fields["channels"] == 24
    assert found.fields["encoder"].options.width < 32
    assert found.same == ()


@pytest.mark.parametrize("name", ["cgnet", "bisenetv2"])
def test_widths_that_go_together_or_divide_in_halves_are_found(name):
    net = create_model(name, num_classes=3)
    found = narrower(name, net.config, macs(net) // 2, SIZE)
    again = create_model(name, num_classes=3, **found.fields)
    assert macs(again) == found.macs
    assert abs(found.macs / macs(net) - 0.5) < 0.06


def test_an_encoder_without_a_width_is_refused_by_name():
    net = create_model("segformer", encoder="mit_b0", num_classes=3)
    with pytest.raises(UsageError, match="control: the encoder mit_b0 has no width"):
        narrower("segformer", net.config, 10**6, SIZE)


def test_a_width_of_an_encoder_stands_above_its_name():
    for fields, width in (({"name": "resnet18_w8"}, 8), ({"name": "resnet18_w8", "width": 20}, 20)):
        net = create_model("unet", encoder=fields, decoder_channels=(8, 8), num_classes=3)
        assert net.encoder.channels[0] == width
    with pytest.raises(UsageError, match=r"width = 1: expected 2 or more"):
        create_model("unet", encoder={"name": "resnet18", "width": 1}, num_classes=3)
