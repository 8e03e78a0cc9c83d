"""Networks in real time: how large they are, and where their heads for training are, where no more is particular."""

from __future__ import annotations

import pytest
import torch

from segatlas.build.network import build_empty, make_config
from segatlas.models.reading import load_architecture

MILLIONS = {
    "bisenetv1_r18": 13.27,
    "bisenetv2": 3.34,
    "fast_scnn": 1.40,
    "icnet_r50": 47.53,
    "pidnet_s": 7.62,
    "pidnet_m": 28.54,
    "pidnet_l": 36.93,
}
HEADS = {
    "bisenetv1": {"stride8": (5, 8, 12), "stride16": (5, 4, 6)},
    "bisenetv2": {"stride4": (5, 16, 24), "stride8": (5, 8, 12), "stride16": (5, 4, 6), "stride32": (5, 2, 3)},
    "fast_scnn": {"stride8": (5, 8, 12), "stride32": (5, 2, 3)},
    "icnet": {"stride16": (5, 5, 7), "stride8": (5, 8, 12)},
    "pidnet": {"detail": (5, 8, 12), "boundary": (1, 8, 12)},
}
"""Of images of 64 x 96 and five classes: name of a head -> channels, height and width of its map."""


@pytest.mark.parametrize(("name", "millions"), MILLIONS.items())
def test_parameters_are_as_many_as_those_of_the_form_that_is_published(name, millions):
    net = build_empty(*make_config(name, {"num_classes": 19}))
    assert sum(parameter.numel() for parameter in net.parameters()) == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize(("name", "heads"), HEADS.items())
def test_heads_are_at_their_strides_while_training_alone(name, heads):
    architecture, config = make_config(name, {"num_classes": 5, **load_architecture(name).tiny})
    torch.manual_seed(0)
    net, x = architecture.build(config), torch.randn(2, 3, 64, 96)
    out = net.train()(x)
    assert {name: tuple(logits.shape[1:]) for name, logits in out.aux.items()} == heads
    assert out.logits.shape[1:] == (5, 8, 12)
    assert not net.eval()(x).aux
