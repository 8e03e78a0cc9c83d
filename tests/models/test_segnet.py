from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import create_model, shapes_only
from segatlas.errors import UsageError
from segatlas.models.segnet import pool, unpool


@pytest.mark.parametrize(("variant", "count"), [("segnet_vgg16", 29_449_355), ("segnet_basic", 1_416_587)])
def test_variants_have_the_parameters_of_the_authors_files(variant: str, count: int):
    with shapes_only():
        net = create_model(variant, num_classes=11)
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 3)])
def test_values_return_to_the_places_of_their_maxima(size: tuple[int, int]):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size)
    pooled, places = pool(x)
    assert pooled.shape[-2:] == (-(-size[0] // 2), -(-size[1] // 2))
    back = unpool(pooled, places, size)
    assert torch.equal(back[back != 0], x[back != 0])
    assert int((back != 0).sum()) == pooled.numel()
    if size == (6, 8):
        assert torch.equal(back, F.max_unpool2d(pooled, places, 2))


def test_the_decoder_mirrors_the_encoder_and_ends_with_a_plain_convolution():
    torch.manual_seed(0)
    net = create_model("segnet", num_classes=3, encoder="vgg11_bn").eval()
    x = torch.randn(1, 3, 45, 61)
    with torch.no_grad():
        y, kept = x, []
        for layer in net.encoder.vgg.features:
            if isinstance(layer, torch.nn.MaxPool2d):
                size = y.shape[-2:]
                y, places = F.max_pool2d(y, 2, ceil_mode=True, return_indices=True)
                kept.append((places, size))
            else:
                y = layer(y)
        assert y.shape[-2:] == (2, 2)
        for level in net.decoder:
            places, size = kept.pop()
            full = torch.zeros(*y.shape[:2], *size).flatten(2)
            y = level(full.scatter(2, places.flatten(2), y.flatten(2)).view(*y.shape[:2], *size))
        out = net(x)
        torch.testing.assert_close(out.logits, net.classifier(y))
    assert out.canvas == (45, 61)
    assert [[conv.conv.out_channels for conv in level] for level in net.decoder] == [
        [512, 512], [512, 256], [256, 128], [64], [],
    ]  # fmt: skip


def test_the_basic_decoder_has_no_relu():
    net = create_model("segnet_basic", num_classes=2, width=4)
    assert not any(isinstance(module, torch.nn.ReLU) for module in net.decoder.modules())
    assert sum(isinstance(module, torch.nn.ReLU) for module in net.encoder.modules()) == 4


@pytest.mark.parametrize("encoder", ["resnet18", {"name": "vgg11", "levels": 3}])
def test_an_encoder_without_the_pooling_indices_is_refused(encoder):
    with pytest.raises(UsageError, match="pooling indices of a whole VGG"):
        create_model("segnet", num_classes=2, encoder=encoder)
