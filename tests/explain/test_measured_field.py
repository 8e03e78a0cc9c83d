from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from segatlas.errors import UsageError
from segatlas.explain.measured_field import effective_field


def test_of_one_convolution_it_is_its_kernel():
    network = nn.Sequential(nn.Conv2d(3, 1, 5, padding=2, bias=False))
    found = effective_field(network, size=(21, 31), count=3)
    weights = network[0].weight.detach()[0].abs().sum(0).double().numpy()
    assert np.allclose(found.gradient[8:13, 13:18], weights / weights.max())
    assert found.gradient.sum() == pytest.approx(found.gradient[8:13, 13:18].sum())
    assert (found.unit, found.box) == ((10, 15), (8, 13, 13, 18))
    assert found.side <= 5
    assert 0 < found.of_box <= 1


def test_deep_networks_use_less_than_they_could():
    torch.manual_seed(0)
    network = nn.Sequential(*(nn.Conv2d(1 if i else 3, 1, 3, padding=1) for i in range(20)))
    for layer in network:
        layer.weight.data.fill_(1 / 9)
    found = effective_field(network, size=(64, 64), count=1)
    assert found.box == (12, 12, 53, 53)
    top, _, bottom, _ = found.square
    assert bottom - top < 25
    assert 0.2 < found.of_box < 0.6


def test_a_layer_by_its_name_and_given_images():
    network = nn.Sequential(nn.Conv2d(3, 2, 3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 3, 1, 1))
    found = effective_field(network, layer="0", size=(16, 16), images=[torch.rand(3, 16, 16)] * 2)
    assert (found.count, found.unit, found.box) == (2, (4, 4), (7, 7, 10, 10))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"layer": "9"}, "which the network does not have"),
        ({"layer": "1"}, r"it gives \(1, 512\), expected a map"),
        ({"count": 0}, "at least 1 of each"),
        ({"images": [torch.rand(3, 8, 8)]}, r"image 0: got \(3, 8, 8\), expected \(3, 16, 16\)"),
    ],
)
def test_what_cannot_be_measured_is_told(options, expected):
    network = nn.Sequential(nn.Conv2d(3, 2, 3, 1, 1), nn.Flatten())
    with pytest.raises(UsageError, match=expected):
        effective_field(network, size=(16, 16), **options)
