"""segatlas.models.icnet; its heads: `test_real_time_heads.py`."""

from __future__ import annotations

import torch

from segatlas.build.network import make_config
from segatlas.models.reading import load_architecture


def test_logits_are_those_of_its_parts_and_a_halved_map_that_is_odd_keeps_a_cell_more():
    architecture, config = make_config("icnet", {"num_classes": 5, **load_architecture("icnet").tiny})
    torch.manual_seed(0)
    net, x = architecture.build(config).eval(), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        features = net.encoder(x)
        assert torch.equal(net.classifier(net.decode(features)), net(x).logits)
    assert [tuple(f.shape[-2:]) for f in features] == [(8, 12), (5, 7), (2, 3)]
