"""Published files of encoders, as torchvision, timm and others write them."""

from __future__ import annotations

import importlib

import pytest
import torch

from segatlas.build.encoder_names import renamed
from segatlas.build.encoder_weights import load_encoder_weights
from segatlas.build.network import create_model, shapes_only
from segatlas.encoders.spec import create_encoder

TORCHVISION = {
    "resnet18": "resnet18",
    "resnext50_32x4d": "resnext50_32x4d",
    "efficientnet-b0": "efficientnet_b0",
    "efficientnet-b3": "efficientnet_b3",
    "mobilenet_v2": "mobilenet_v2",
    "densenet121": "densenet121",
    "vgg16_bn": "vgg16_bn",
    "timm/convnext_tiny": "convnext_tiny",
}
TIMM = {
    "resnext50_32x4d": "resnext50_32x4d",
    "efficientnet-b0": "tf_efficientnet_b0",
    "efficientnet-b3": "tf_efficientnet_b3",
    "mobilenet_v2": "mobilenetv2_100",
    "densenet121": "densenet121",
    "vgg16_bn": "vgg16_bn",
    "timm/convnext_tiny": "convnext_tiny",
}


def shapes(name: str, library: str, theirs: str) -> tuple[dict, dict]:
    """Return the shapes of our encoder, and those of the library's image classifier under our names."""
    with shapes_only():
        expected = create_encoder(name).state_dict()
        models = (
            pytest.importorskip("torchvision").models if library == "torchvision" else importlib.import_module("timm")
        )
        net = models.get_model(theirs) if library == "torchvision" else models.create_model(theirs)
    found = renamed(name, expected, net.state_dict())
    return ({key: tuple(t.shape) for key, t in state.items()} for state in (expected, found))


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_files_have_every_tensor_of_ours_and_no_other_but_the_classifier(name):
    expected, found = shapes(name, "torchvision", TORCHVISION[name])
    assert found == expected


@pytest.mark.parametrize("name", TIMM)
def test_timms_files_have_every_tensor_of_ours_and_no_other_but_the_classifier(name):
    expected, found = shapes(name, "timm", TIMM[name])
    assert found == expected


def test_densenet_files_of_torchvision_have_names_older_than_its_own():
    with shapes_only():
        expected = create_encoder("densenet121").state_dict()
    old = {key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): tensor for key, tensor in expected.items()}
    assert old.keys() != expected.keys()
    assert renamed("densenet121", expected, old).keys() == expected.keys()


def test_efficientnet_b0_gives_timms_maps_for_the_published_image_size():
    timm = importlib.import_module("timm")
    torch.manual_seed(0)
    theirs = timm.create_model("tf_efficientnet_b0", features_only=True).eval()
    ours = create_encoder("efficientnet-b0").eval()
    ours.load_state_dict(renamed("efficientnet-b0", ours.state_dict(), theirs.state_dict()))
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        for index, theirs_map in enumerate(theirs(x)):
            if index in (1, 2, 4):  # timm's first map is behind a block, its fourth behind all of 112 channels
                torch.testing.assert_close(ours(x)[index], theirs_map, rtol=1e-4, atol=1e-5)


def test_a_shallower_encoder_takes_the_file_of_the_whole_one(tmp_path):
    whole = create_encoder("vgg11")
    torch.save({**whole.state_dict(), "classifier.0.weight": torch.ones(2, 2)}, tmp_path / "vgg11.pth")
    encoder = {"name": "vgg11", "levels": 3}
    net = create_model("unet", encoder=encoder, decoder_channels=(8, 8, 4), num_classes=2)
    dropped = load_encoder_weights(net, str(tmp_path / "vgg11.pth"))
    coarser = [f"features.{place}.{part}" for place in (16, 18) for part in ("weight", "bias")]
    assert dropped == (*coarser, "classifier.0.weight")
    assert torch.equal(net.encoder.features[0].weight, whole.features[0].weight)
