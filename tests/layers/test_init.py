from __future__ import annotations

import pytest
import torch
from torch import nn

from segatlas.layers.init import init_weights


@pytest.mark.parametrize(
    ("layer", "std"),
    [
        (nn.Conv2d(32, 64, 3), (2 / (64 * 9)) ** 0.5),
        (nn.Conv2d(512, 512, 3, groups=512), (2 / 9) ** 0.5),
        (nn.Linear(256, 128), 0.02),
    ],
)
def test_weights_have_the_standard_deviation_of_their_paper_and_biases_are_zero(layer, std):
    torch.manual_seed(0)
    init_weights(nn.Sequential(layer))
    assert float(layer.weight.detach().std()) == pytest.approx(std, rel=0.05)
    assert not layer.bias.any()


def test_norms_start_as_the_identity():
    norm = nn.LayerNorm(4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    init_weights(norm)
    assert torch.equal(norm.weight, torch.ones(4))
    assert torch.equal(norm.bias, torch.zeros(4))
