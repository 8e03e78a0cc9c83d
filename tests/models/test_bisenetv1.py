"""segatlas.models.bisenetv1."""

from __future__ import annotations

import pytest
import torch

from segatlas.build.network import build_empty, make_config
from segatlas.models.reading import load_architecture


@pytest.mark.parametrize(("name", "millions"), [("bisenetv1_r18", 13.27)])
def test_parameters_are_as_many_as_those_of_the_form_that_is_published(name, millions):
    net = build_empty(*make_config(name, {"num_classes": 19}))
    assert sum(parameter.numel() for parameter in net.parameters()) == pytest.approx(millions * 1e6, rel=0.01)


def tiny():
    architecture, config = make_config("bisenetv1", {"num_classes": 5, **load_architecture("bisenetv1").tiny})
    torch.manual_seed(0)
    return architecture.build(config)


def test_heads_are_at_their_strides_while_training_alone():
    net, x = tiny(), torch.randn(2, 3, 64, 96)
    out = net.train()(x)
    assert {name: tuple(logits.shape[1:]) for name, logits in out.aux.items()} == {
        "stride8": (5, 8, 12),
        "stride16": (5, 4, 6),
    }
    assert out.logits.shape[1:] == (5, 8, 12)
    assert not net.eval()(x).aux
