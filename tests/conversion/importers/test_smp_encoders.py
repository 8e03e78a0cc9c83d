"""Encoders in files of segmentation-models-pytorch: which one, how deep, and what is told where they do not fit."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from fakes.golden import hollow
from safetensors.torch import save_file

import segatlas as sa
from segatlas.build.network import build_empty, create_model, make_config
from segatlas.conversion.converting import tensors_of
from segatlas.conversion.importers.smp import pspnet
from segatlas.conversion.importers.smp import unet as importer
from segatlas.conversion.recognition import recognise
from segatlas.conversion.renaming import rename_to_ours, rename_to_theirs
from segatlas.errors import UsageError, WeightsError
from segatlas.models.pspnet import SMP as PSPNET_SMP

STEPS = (32, 16, 16, 8, 8)


def theirs_of(encoder: dict[str, Any] | str, **fields: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of the library's U-Net on an encoder, without memory."""
    levels = encoder.get("levels", 5) if isinstance(encoder, dict) else 5
    given = {"num_classes": 3, "encoder": encoder, "decoder_channels": STEPS[:levels], **fields}
    architecture, config = make_config("unet", given)
    return rename_to_theirs(importer.IMPORTER, config, hollow(build_empty(architecture, config).state_dict()))


def found_in(tensors: dict[str, torch.Tensor], **settings: Any) -> dict[str, Any]:
    [found] = recognise(tensors, settings, source="smp")
    return dict(found.fields)


@pytest.mark.parametrize(
    "encoder",
    [
        {"name": "resnext50_32x4d"},
        {"name": "efficientnet-b1"},
        {"name": "efficientnet-b2", "levels": 4},
        {"name": "densenet169", "levels": 3},
        {"name": "vgg13"},
        {"name": "vgg19_bn", "levels": 4},
        {"name": "mit_b1", "levels": 4},
        {"name": "mobilenet_v2", "levels": 3},
        {"name": "timm/convnext_nano", "levels": 4},
        {"name": "timm/vgg11_bn", "finest_stride": 2},
    ],
    ids=lambda encoder: encoder["name"],
)
def test_encoder_depth_and_channels_are_read_from_names_and_shapes(encoder):
    found = found_in(theirs_of(encoder, in_channels=4))
    assert (found["encoder"], found["in_channels"]) == (encoder, 4)


def test_the_library_keeps_stages_that_it_does_not_use():
    shallow, whole = theirs_of({"name": "resnet18", "levels": 3}), theirs_of("resnet18")
    assert {name for name in shallow if name.startswith("encoder.")} == {n for n in whole if n.startswith("encoder.")}
    assert {"encoder._conv_head.weight", "encoder._bn1.running_var"} <= theirs_of("efficientnet-b0").keys()


def test_a_depth_in_settings_that_is_not_the_files_is_told():
    with pytest.raises(WeightsError, match="encoder_depth is 5, but the decoder of the file has 4 steps"):
        found_in(theirs_of({"name": "resnet18", "levels": 4}), encoder_depth=5)


def test_a_depth_that_neither_weights_nor_the_default_tell_is_asked_for():
    architecture, config = make_config(
        "pspnet", {**PSPNET_SMP, "num_classes": 3, "encoder": {"name": "densenet121", "levels": 4}, "channels": 8}
    )
    theirs = rename_to_theirs(pspnet.IMPORTER, config, hollow(build_empty(architecture, config).state_dict()))
    with pytest.raises(
        WeightsError, match=r"fit an encoder_depth of 4, 5 alike.* is 3: state it, --set encoder_depth=4"
    ):
        found_in(theirs)
    assert [found_in(theirs, encoder_depth=depth)["encoder"].get("levels", 5) for depth in (4, 5)] == [4, 5]
    with pytest.raises(WeightsError, match="upsampling = 0: expected a whole number from 1 on"):
        found_in(theirs, encoder_depth=4, upsampling=0)


def test_an_encoder_of_another_kind_is_told_by_its_parts():
    tensors = {name.replace("encoder.layer1", "encoder.layer0.1"): t for name, t in theirs_of("resnet18").items()}
    with pytest.raises(
        WeightsError, match=r"the encoder 'se_resnet18' is none that can be read \(its parts: bn1.*ResNeXt"
    ):
        found_in(tensors, encoder_name="se_resnet18")


def test_an_encoder_that_timm_has_in_two_forms_wants_its_name():
    tensors = theirs_of("timm/tf_efficientnet_lite0")
    with pytest.raises(WeightsError, match=r"state it, --set encoder_name=tu-NAME"):
        found_in(tensors)
    assert found_in(tensors, encoder_name="tu-tf_efficientnet_lite0")["encoder"] == {
        "name": "timm/tf_efficientnet_lite0"
    }
    assert found_in(theirs_of("timm/tf_mobilenetv3_large_100"), encoder_name="timm-mobilenetv3_large_100")[
        "encoder"
    ] == {"name": "timm/tf_mobilenetv3_large_100"}
    with pytest.raises(WeightsError, match="encoder_name is 'resnet18', but the encoder in the file is one of timm's"):
        found_in(tensors, encoder_name="resnet18")


def test_names_of_early_releases_are_read():
    old = {}
    for name, tensor in theirs_of("densenet121").items():
        in_encoder = name.startswith("encoder.")
        old[name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2.") if in_encoder else name] = tensor
    architecture, config = make_config("unet", found_in(old))
    ours = build_empty(architecture, config).state_dict()
    assert rename_to_ours(importer.IMPORTER, config, old).keys() == ours.keys()
    regnet = theirs_of("timm/regnetx_002")
    found = found_in({name.replace("encoder.model.", "encoder."): tensor for name, tensor in regnet.items()})
    assert (found["encoder"], found["in_channels"]) == ({"name": "timm/regnetx_002"}, 3)


def test_efficientnet_of_releases_before_0_3_pads_as_for_even_sides():
    tensors = theirs_of("efficientnet-b3")
    [found] = recognise(tensors, {}, source="smp")
    assert [note for note in found.notes if "for a model of 0.2: --set library_version=0.2" in note]
    assert "even_padding" not in found.fields["encoder"]
    assert found_in(tensors, library_version="0.2.1")["encoder"] == {"name": "efficientnet-b3", "even_padding": True}
    assert found_in(theirs_of("efficientnet-b0"), library_version="0.2.1")["encoder"] == {"name": "efficientnet-b0"}


def test_a_decoder_for_more_maps_than_the_encoder_gives_is_refused():
    with pytest.raises(UsageError, match=r"decoder_channels has 5 entries; an encoder of strides .* takes 1 to 3"):
        create_model("unet", encoder={"name": "resnet18", "levels": 3}, num_classes=2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A U-Net as the library's users save it: a state dict, a Lightning checkpoint, a folder of `save_pretrained`."""
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    net = create_model("unet", encoder="resnet18", num_classes=3, decoder_channels=STEPS).eval()
    theirs = {name: t.contiguous() for name, t in tensors_of("smp", "unet", net.config, net.state_dict()).items()}
    torch.save(theirs, folder / "model.pth")
    inside = {f"model.{name}": tensor for name, tensor in theirs.items()} | {"loss_fn.weight": torch.ones(3)}
    torch.save({"epoch": 3, "pytorch-lightning_version": "2.6.1", "state_dict": inside}, folder / "last.ckpt")
    (folder / "pretrained").mkdir()
    save_file(theirs, folder / "pretrained" / "model.safetensors")
    settings = {"_model_class": "Unet", "encoder_name": "resnet18", "encoder_depth": 5, "classes": 3, "in_channels": 3}
    settings |= {"decoder_channels": list(STEPS)}
    (folder / "pretrained" / "config.json").write_text(json.dumps(settings))
    return folder, net, theirs


@pytest.mark.parametrize("name", ["model.pth", "last.ckpt", "pretrained"])
def test_each_way_of_saving_gives_the_same_numbers(saved, tmp_path, name):
    folder, net, _ = saved
    x = torch.randn(1, 3, 61, 93, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = net(x).logits
    assert torch.equal(
        sa.load(sa.convert(folder / name, out=tmp_path / "ours"), device="cpu").model(x).logits, expected
    )


def test_a_missing_and_a_strange_tensor_of_the_encoder_are_named(saved, tmp_path):
    _, _, theirs = saved
    for changed, told in (
        (
            {k: t for k, t in theirs.items() if k != "encoder.layer4.1.conv2.weight"},
            r"encoder\.layer4\.1\.conv2\.weight",
        ),
        (theirs | {"encoder.layer5.0.conv1.weight": torch.ones(2, 2)}, r"encoder\.layer5\.0\.conv1\.weight"),
    ):
        torch.save(changed, tmp_path / "changed.pth")
        with pytest.raises(WeightsError, match=told):
            sa.convert(tmp_path / "changed.pth", out=tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_head_of_another_class_count_than_settings_say_is_told(saved, tmp_path):
    _, _, theirs = saved
    torch.save(theirs, tmp_path / "model.pth")
    (tmp_path / "config.json").write_text(json.dumps({"encoder_name": "resnet18", "classes": 5}))
    with pytest.raises(WeightsError, match="classes is 5, but the file has 3"):
        sa.convert(tmp_path / "model.pth", out=tmp_path / "ours", config=tmp_path / "config.json")
