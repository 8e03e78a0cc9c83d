from __future__ import annotations

import pytest
from torch import nn

from segatlas import explain
from segatlas.errors import UsageError

NETWORK = nn.Sequential()
NETWORK.add_module("encoder", nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
NETWORK.add_module("classifier", nn.Conv2d(4, 2, 1))


def test_layers_are_named_in_the_networks_own_order():
    assert explain.layer_names(NETWORK) == ("encoder", "encoder.0", "encoder.1", "classifier")
    assert explain.find_layer(NETWORK, "encoder.1") is NETWORK.encoder[1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clasifier", "nearest: classifier"),
        ("encoder.9", "nearest: encoder.1, encoder.0, encoder"),
        ("zzzz", "its outermost are: encoder, classifier"),
        ("", "its outermost are: encoder, classifier"),
    ],
)
def test_a_layer_that_is_not_there_is_told_with_the_nearest(name, expected):
    with pytest.raises(UsageError, match=expected):
        explain.find_layer(NETWORK, name)
