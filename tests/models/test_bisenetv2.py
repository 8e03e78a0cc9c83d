"""segatlas.models.bisenetv2."""

from __future__ import annotations

import pytest
import torch

from segatlas.build.network import build_empty, make_config
from segatlas.models.reading import load_architecture


@pytest.mark.parametrize(("name", "millions"), [("bisenetv2", 3.34)])
def test_parameters_are_as_many_as_those_of_the_form_that_is_published(name, millions):
    net = build_empty(*make_config(name, {"num_classes": 19}))
    assert sum(parameter.numel() for parameter in net.parameters()) == pytest.approx(millions * 1e6, rel=0.01)


def tiny():
    architecture, config = make_config("bisenetv2", {"num_classes": 5, **load_architecture("bisenetv2").tiny})
    torch.manual_seed(0)
    return architecture.build(config)


def test_heads_are_at_their_strides_while_training_alone():
    net, x = tiny(), torch.randn(2, 3, 64, 96)
    out = net.train()(x)
    assert {name: tuple(logits.shape[1:]) for name, logits in out.aux.items()} == {
        "stride4": (5, 16, 24),
        "stride8": (5, 8, 12),
        "stride16": (5, 4, 6),
        "stride32": (5, 2, 3),
    }
    assert out.logits.shape[1:] == (5, 8, 12)
    assert not net.eval()(x).aux
