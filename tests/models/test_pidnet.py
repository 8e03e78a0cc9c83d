"""segatlas.models.pidnet."""

from __future__ import annotations

import pytest
import torch

from segatlas.build.network import build_empty, make_config
from segatlas.models.reading import load_architecture


@pytest.mark.parametrize(("name", "millions"), [("pidnet_s", 7.62), ("pidnet_m", 28.54), ("pidnet_l", 36.93)])
def test_parameters_are_as_many_as_those_of_the_form_that_is_published(name, millions):
    net = build_empty(*make_config(name, {"num_classes": 19}))
    assert sum(parameter.numel() for parameter in net.parameters()) == pytest.approx(millions * 1e6, rel=0.01)


def tiny():
    architecture, config = make_config("pidnet", {"num_classes": 5, **load_architecture("pidnet").tiny})
    torch.manual_seed(0)
    return architecture.build(config)


def test_heads_are_at_their_strides_while_training_alone():
    net, x = tiny(), torch.randn(2, 3, 64, 96)
    out = net.train()(x)
    assert {name: tuple(logits.shape[1:]) for name, logits in out.aux.items()} == {
        "detail": (5, 8, 12),
        "boundary": (1, 8, 12),
    }
    assert out.logits.shape[1:] == (5, 8, 12)
    assert not net.eval()(x).aux
