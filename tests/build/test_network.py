from __future__ import annotations

import pytest
import torch
from torch import nn

from segatlas.build.network import build_empty, build_network, create_model, make_config
from segatlas.encoders.spec import EncoderSpec
from segatlas.errors import UsageError
from segatlas.models import ARCHITECTURES
from segatlas.models.reading import load_architecture, read_config
from segatlas.models.unet import UNetConfig

TINY_DECODER = (8, 8, 8, 4, 4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_made_and_knows_its_name_and_config(name):
    record = load_architecture(name)
    net = create_model(name, num_classes=3, **record.tiny)
    assert net.architecture == name
    assert type(net.config) is record.config
    assert (net.config, []) == read_config(record, {"num_classes": 3, "in_channels": 3, **record.tiny})


@pytest.mark.parametrize("key", ["num_classes", "in_channels"])
@pytest.mark.parametrize("count", [0, -1])
def test_networks_without_a_class_or_a_channel_are_refused(key, count):
    with pytest.raises(UsageError, match=f"{key} = {count}: expected 1 or more"):
        create_model("unet", **{"num_classes": 3, key: count})


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_refuses_an_unknown_field(name):
    with pytest.raises(UsageError, match="unknown key"):
        create_model(name, num_classes=3, no_such_field=1, **load_architecture(name).tiny)


def test_a_variant_sets_its_fields_and_given_ones_stand_above_them():
    net = create_model("segformer_b0", num_classes=2, decoder_channels=16)
    assert net.architecture == "segformer"
    assert net.config.encoder == EncoderSpec(name="mit_b0")
    assert net.config.decoder_channels == 16


def test_the_names_of_segmentation_models_pytorch_mean_the_same():
    torch.manual_seed(0)
    theirs = create_model(
        "unet", encoder_name="resnet18", encoder_weights=None, in_channels=1, classes=4, decoder_channels=TINY_DECODER
    )
    torch.manual_seed(0)
    ours = create_model("unet", encoder="resnet18", in_channels=1, num_classes=4, decoder_channels=TINY_DECODER)
    assert theirs.config == ours.config
    assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), ours.parameters(), strict=True))


def test_an_alias_that_contradicts_its_meaning_is_an_error():
    with pytest.raises(UsageError, match="classes=4 contradicts num_classes=3"):
        create_model("unet", num_classes=3, classes=4)


def test_an_unknown_model_is_answered_with_the_nearest_name():
    with pytest.raises(UsageError, match=r"'segfomer_b2'.*did you mean 'segformer_b2'\?"):
        create_model("segfomer_b2", num_classes=2)


def test_all_faults_of_the_fields_are_named_at_once_with_the_nearest_name():
    with pytest.raises(UsageError) as error:
        create_model("unet", encodr="resnet18", width="wide")
    message = str(error.value)
    assert "encodr" in message
    assert "did you mean 'encoder'?" in message
    assert 'width = "wide"' in message
    assert "num_classes: this key is required" in message


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_empty_network_has_the_names_and_shapes_of_a_real_one_and_holds_no_memory(name):
    architecture, config = make_config(name, {"num_classes": 3, **load_architecture(name).tiny})
    empty, real = build_empty(architecture, config).state_dict(), build_network(architecture, config).state_dict()
    assert {k: v.shape for k, v in empty.items()} == {k: v.shape for k, v in real.items()}
    assert all(tensor.is_meta for tensor in empty.values())


def test_a_network_is_an_ordinary_module_in_training_mode():
    net = create_model("unet", num_classes=2, width=4)
    assert isinstance(net, nn.Module)
    assert net.training
    assert isinstance(net.config, UNetConfig)
    assert net(torch.zeros(2, 3, 16, 16)).logits.shape == (2, 2, 16, 16)
