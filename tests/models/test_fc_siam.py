"""FC-Siam beyond the contracts: what it does with the two dates."""

from __future__ import annotations

import pytest
import torch

from segatlas.errors import UsageError
from segatlas.models.fc_siam import FCSiam, FCSiamConfig
from segatlas.structures import Inputs


def make(fusion="difference", **fields):
    torch.manual_seed(0)
    return FCSiam(FCSiamConfig(num_classes=2, fusion=fusion, **fields)).eval()


# Channels of the authors' 3x3 convolutions in front of a batch norm, and of the four that double a map.
ENCODER = [(16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 64), (64, 128), (128, 128), (128, 128)]
DECODER = [(128, 128), (128, 64), (64, 64), (64, 32), (32, 16)]
DOUBLING = (128, 64, 32, 16)
AFTER_SKIPS = {"difference": 2, "both": 3, "early": 2}


@pytest.mark.parametrize("fusion", AFTER_SKIPS)
def test_the_published_variants_have_as_many_weights_as_the_layers_of_the_authors(fusion):
    first = (6 if fusion == "early" else 3, 16)
    after_skips = [(AFTER_SKIPS[fusion] * channels, channels) for channels in DOUBLING]
    weights = sum(9 * a * b + 2 * b for a, b in [first, *ENCODER, *DECODER, *after_skips])
    weights += sum(9 * channels * channels + channels for channels in DOUBLING) + (9 * 16 * 2 + 2)
    assert sum(p.numel() for p in make(fusion).parameters()) == weights


def test_two_equal_dates_leave_the_difference_to_the_deepest_map_alone():
    net, image = make(), torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        _, said = net.encode(image, image)
        assert all(not maps.any() for maps in said)
        other = net(Inputs(image, {"before": torch.randn(1, 3, 32, 48)})).logits
        assert not torch.equal(net(Inputs(image, {"before": image})).logits, other)


@pytest.mark.parametrize("fusion", ["difference", "both", "early"])
def test_the_order_of_the_dates_matters(fusion):
    net, first, second = make(fusion, width=4), torch.randn(1, 3, 32, 48), torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        forth = net(Inputs(second, {"before": first})).logits
        back = net(Inputs(first, {"before": second})).logits
    assert not torch.allclose(forth, back)


def test_an_image_alone_is_refused_with_what_is_needed():
    with pytest.raises(UsageError, match="needs the source 'before'"):
        make(width=4)(torch.randn(1, 3, 32, 32))
