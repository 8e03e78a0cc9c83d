"""segatlas.models.icnet."""

from __future__ import annotations

import pytest
import torch

from segatlas.build.network import build_empty, make_config
from segatlas.models.reading import load_architecture


@pytest.mark.parametrize(("name", "millions"), [("icnet_r50", 47.53)])
def test_parameters_are_as_many_as_those_of_the_form_that_is_published(name, millions):
    net = build_empty(*make_config(name, {"num_classes": 19}))
    assert sum(parameter.numel() for parameter in net.parameters()) == pytest.approx(millions * 1e6, rel=0.01)


def tiny():
    architecture, config = make_config("icnet", {"num_classes": 5, **load_architecture("icnet").tiny})
    torch.manual_seed(0)
    return architecture.build(config)


def test_heads_are_at_their_strides_while_training_alone():
    net, x = tiny(), torch.randn(2, 3, 64, 96)
    out = net.train()(x)
    assert {name: tuple(logits.shape[1:]) for name, logits in out.aux.items()} == {
        "stride16": (5, 5, 7),
        "stride8": (5, 8, 12),
    }
    assert out.logits.shape[1:] == (5, 8, 12)
    assert not net.eval()(x).aux


def test_logits_are_those_of_its_parts_and_a_halved_map_that_is_odd_keeps_a_cell_more():
    net, x = tiny().eval(), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = net.encoder(x)
        assert torch.equal(net.classifier(net.decode(features)), net(x).logits)
    assert [tuple(f.shape[-2:]) for f in features] == [(8, 12), (5, 7), (2, 3)]
