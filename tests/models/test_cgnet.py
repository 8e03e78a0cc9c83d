"""segatlas.models.cgnet."""

from __future__ import annotations

import pytest
import torch

from segatlas.build.network import build_empty, make_config
from segatlas.errors import UsageError
from segatlas.models.reading import load_architecture


@pytest.mark.parametrize(("name", "millions"), [("cgnet", 0.496)])
def test_parameters_are_as_many_as_those_of_the_form_that_is_published(name, millions):
    net = build_empty(*make_config(name, {"num_classes": 19}))
    assert sum(parameter.numel() for parameter in net.parameters()) == pytest.approx(millions * 1e6, rel=0.01)


def tiny():
    architecture, config = make_config("cgnet", {"num_classes": 5, **load_architecture("cgnet").tiny})
    torch.manual_seed(0)
    return architecture.build(config)


def test_widths_that_are_no_two_halves_are_refused():
    with pytest.raises(UsageError, match=r"widths: got \[32, 63, 128\], expected even numbers"):
        make_config("cgnet", {"num_classes": 5, "widths": (32, 63, 128)})


def test_the_image_is_injected_before_each_stage_and_stages_hand_on_their_first_block():
    net = tiny().eval()
    with torch.no_grad():
        maps = net.encoder(torch.randn(1, 3, 61, 93))
    assert [tuple(found.shape[1:]) for found in maps] == [(11, 31, 47), (19, 16, 24), (32, 8, 12)]
