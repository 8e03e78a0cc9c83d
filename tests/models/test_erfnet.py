"""segatlas.models.erfnet."""

from __future__ import annotations

import pytest
import torch

from segatlas.build.network import build_empty, make_config
from segatlas.models.reading import load_architecture


@pytest.mark.parametrize(("name", "millions"), [("erfnet", 2.08)])
def test_parameters_are_as_many_as_those_of_the_form_that_is_published(name, millions):
    net = build_empty(*make_config(name, {"num_classes": 19}))
    assert sum(parameter.numel() for parameter in net.parameters()) == pytest.approx(millions * 1e6, rel=0.01)


def tiny():
    architecture, config = make_config("erfnet", {"num_classes": 5, **load_architecture("erfnet").tiny})
    torch.manual_seed(0)
    return architecture.build(config)


def test_a_size_that_is_no_multiple_of_8_gives_the_map_of_the_next_one_over_the_image_itself():
    net = tiny().eval()
    with torch.no_grad():
        out = net(torch.randn(1, 3, 61, 93))
        small = net(torch.randn(1, 3, 5, 5))
    assert (out.canvas, out.logits.shape[-2:]) == ((61, 93), (32, 48))
    assert (small.canvas, small.logits.shape[-2:]) == ((8, 8), (4, 4))
