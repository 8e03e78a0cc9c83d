"""Parity with timm and torchvision, and timm's backbones behind our contract."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision

from segatlas.build.network import shapes_only
from segatlas.encoders.spec import create_encoder
from segatlas.errors import UsageError

OURS_AND_TIMMS = [
    ("resnet18", {}),
    ("resnet50", {}),
    ("resnet50", {"output_stride": 16}),
    ("resnet18", {"output_stride": 8}),
    ("resnet50c", {}),
    ("resnet18d", {}),
]


def randomise(net: torch.nn.Module) -> torch.nn.Module:
    """Give norms values that a mix-up would show, at a scale that keeps activations near one."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.normal_(module.bias, std=0.1)
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


@pytest.mark.parametrize(("name", "fields"), OURS_AND_TIMMS)
def test_resnet_takes_timms_weights_key_by_key_and_gives_its_features(name, fields):
    theirs = randomise(timm.create_model(name, features_only=True, **fields))
    ours = create_encoder(name, **fields).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert list(ours.channels) == theirs.feature_info.channels()
    assert list(ours.strides) == theirs.feature_info.reduction()
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        for mine, expected in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet34", "resnet101", "resnet152"])
def test_deeper_resnets_have_torchvisions_keys_and_shapes(name):
    with shapes_only():
        ours, theirs = create_encoder(name), torchvision.models.get_model(name, weights=None)
    shapes = {key: tuple(t.shape) for key, t in theirs.state_dict().items() if not key.startswith("fc.")}
    assert {key: tuple(t.shape) for key, t in ours.state_dict().items()} == shapes


def test_mobilenet_v2_takes_torchvisions_weights_key_by_key_and_gives_its_features():
    theirs = randomise(torchvision.models.mobilenet_v2(weights=None))
    state = {key: t for key, t in theirs.state_dict().items() if not key.startswith("classifier.")}
    ours = create_encoder("mobilenet_v2").eval()
    ours.load_state_dict(state, strict=True)
    assert sum(p.numel() for p in ours.parameters()) == 2_223_872
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        features = ours(x)
        for end, mine in zip((2, 4, 7, 14, 19), features, strict=True):
            torch.testing.assert_close(mine, theirs.features[:end](x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size_divisibility"),
    [("timm/resnet18", 1), ("convnext_atto", 1), ("swin_tiny_patch4_window7_224", 32), ("vit_tiny_patch16_224", 16)],
)
def test_a_timm_backbone_says_what_maps_it_gives(name, size_divisibility):
    encoder = create_encoder(name, in_channels=4).eval()
    assert encoder.size_divisibility == size_divisibility
    with torch.no_grad():
        features = encoder(torch.randn(1, 4, 64, 96))
    assert [tuple(f.shape[1:]) for f in features] == [
        (c, 64 // s, 96 // s) for c, s in zip(encoder.channels, encoder.strides, strict=True)
    ]
    staged = {id(p) for stage in encoder.stages() for module in stage for p in module.parameters()}
    loose = {"model.model.cls_token", "model.model.pos_embed"}
    assert staged == {id(p) for name, p in encoder.named_parameters() if name not in loose}


def test_layers_run_one_by_one_give_timms_own_features():
    encoder = create_encoder("timm/resnet10t").eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for mine, expected in zip(encoder(x), encoder.model(x), strict=True):
            assert torch.equal(mine, expected)


def test_output_stride_reaches_timm_and_a_network_without_it_is_refused():
    assert create_encoder("timm/resnet10t", output_stride=8).strides == (2, 4, 8, 8, 8)
    with pytest.raises(UsageError, match="output_stride = 8: vit_tiny_patch16_224 has its own only, expected null"):
        create_encoder("vit_tiny_patch16_224", output_stride=8)
    with pytest.raises(UsageError, match="'convmixer_768_32' gives no feature maps with output_stride=8"):
        create_encoder("convmixer_768_32", output_stride=8)
