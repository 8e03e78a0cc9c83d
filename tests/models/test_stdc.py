"""segatlas.models.stdc."""

from __future__ import annotations

import pytest
import torch

from segatlas.build.network import build_empty, make_config
from segatlas.models.reading import load_architecture


@pytest.mark.parametrize(("name", "trained", "used"), [("stdc1", 8.57e6, 8.28e6), ("stdc2", 12.60e6, 12.31e6)])
def test_parameters_are_those_of_the_published_networks(name, trained, used):
    def count(**fields):
        net = build_empty(*make_config(name, {"num_classes": 19, **fields}))
        return sum(parameter.numel() for parameter in net.parameters())

    assert count(aux=True, detail_channels=2) == pytest.approx(trained, abs=5e3)
    assert count() == pytest.approx(used, abs=5e3)


def test_heads_are_at_strides_8_and_16_and_the_detail_head_has_its_own_channels():
    architecture, config = make_config("stdc", {"num_classes": 5, **load_architecture("stdc").tiny})
    out = architecture.build(config).train()(torch.randn(1, 3, 64, 96))
    shapes = {name: tuple(logits.shape[1:]) for name, logits in out.aux.items()}
    assert shapes == {"stride8": (5, 8, 12), "stride16": (5, 4, 6), "detail": (1, 8, 12)}
    assert out.logits.shape[1:] == (5, 8, 12)
    assert out.resample.align_corners
