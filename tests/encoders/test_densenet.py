from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import shapes_only
from segatlas.encoders.spec import create_encoder

PARAMETERS = {"densenet121": 6_953_856, "densenet161": 26_472_000, "densenet169": 12_484_480, "densenet201": 18_092_928}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_torchvisions_without_classifier(name):
    with shapes_only():
        encoder = create_encoder(name)
    assert sum(p.numel() for p in encoder.parameters()) == PARAMETERS[name]


def test_maps_are_those_behind_norm_and_relu_of_torchvisions_network():
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    theirs = models.DenseNet(growth_rate=32, block_config=(6, 12, 24, 16), num_init_features=64).eval()
    encoder = create_encoder("densenet121").eval()
    encoder.load_state_dict({key: value for key, value in theirs.state_dict().items() if key.startswith("features.")})
    x = image = torch.randn(1, 3, 64, 96)
    expected = []
    with torch.no_grad():
        for name, part in theirs.features.named_children():
            if name.startswith("transition"):
                expected.append(F.relu(part.norm(x)))
            x = part(x)
            if name in ("relu0", "norm5"):
                expected.append(x.clone())
        maps = encoder(image)
    torch.testing.assert_close(maps, expected, rtol=0, atol=0)
