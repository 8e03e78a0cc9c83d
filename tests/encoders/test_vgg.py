from __future__ import annotations

import pytest
import torch

from segatlas.build.network import shapes_only
from segatlas.encoders.spec import create_encoder

PARAMETERS = {"vgg11": 9_220_480, "vgg16": 14_714_688, "vgg16_bn": 14_723_136, "vgg19_bn": 20_035_392}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_torchvisions_without_classifier(name):
    with shapes_only():
        encoder = create_encoder(name)
    assert sum(p.numel() for p in encoder.parameters()) == PARAMETERS[name]


def test_maps_are_those_before_each_pooling_but_the_first_and_the_pooled_last():
    vgg = create_encoder("vgg11_bn").eval()
    with torch.no_grad():
        x = image = torch.rand(1, 3, 64, 64)
        before = []
        for layer in vgg.features:
            if isinstance(layer, torch.nn.MaxPool2d):
                before.append(x.clone())
            x = layer(x)
        maps = vgg(image)
    torch.testing.assert_close(maps, [*before[1:], x], rtol=0, atol=0)
