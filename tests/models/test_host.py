"""Networks around a host: what makes them, what is told, and that the host stays what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.foreign import foreign_state, small_network, write_checkpoint

from segatlas.build.encoder_weights import load_encoder_weights, published_statistics
from segatlas.build.network import create_model
from segatlas.build.saving import make_card, save_pretrained
from segatlas.build.starting import start_from
from segatlas.config.architectures import in_section
from segatlas.config.schema import OptimizerConfig
from segatlas.conversion.converting import convert_file
from segatlas.errors import ConfigError, Problem, UsageError, WeightsError
from segatlas.hub.loading import load_pretrained
from segatlas.inference.fast_form import fast_form
from segatlas.recipe import Config
from segatlas.structures import Inputs
from segatlas.training.optim import parameter_groups

SMALL: dict[str, Any] = {"name": "fcn", "encoder": "resnet18_w8", "channels": 8, "aux": True}


def wrapped(**fields: Any) -> torch.nn.Module:
    return create_model("temperature", host={**SMALL, **fields}, num_classes=3)


def alone(**fields: Any) -> torch.nn.Module:
    own = {**SMALL, **fields}
    return create_model(own.pop("name"), num_classes=3, **own)


def logits(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return net.eval()(x).logits


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.randn(1, 3, 65, 97, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("library", ["mmseg", "smp"])
def test_an_identity_around_a_published_checkpoint_keeps_its_numbers_bit_by_bit(library, image, tmp_path: Path):
    state = foreign_state(library, small_network(library))
    write_checkpoint(tmp_path / "theirs.pth", state, meta={} if library == "mmseg" else None)
    convert_file(tmp_path / "theirs.pth", tmp_path / "converted")
    host, card = load_pretrained(tmp_path / "converted")
    expected = logits(host, image)
    net = create_model("temperature", host=host)
    assert torch.equal(logits(net, image), expected)

    save_pretrained(net, tmp_path / "wrapped", classes=card.classes)
    again, kept = load_pretrained(tmp_path / "wrapped")
    assert torch.equal(logits(again, image), expected)
    assert again.config == net.config
    assert (kept.architecture, kept.config["host"]["name"]) == ("temperature", card.architecture)

    shared = {key: card.config[key] for key in ("num_classes", "in_channels")}
    own = {key: value for key, value in card.config.items() if key not in shared}
    fresh = create_model("temperature", host={"name": card.architecture, **own}, **shared)
    report = start_from(fresh, tmp_path / "converted")
    assert torch.equal(logits(fresh, image), expected)
    assert report.replaced == ()
    assert all(name.startswith("host.") for name in report.loaded)


def test_a_seed_gives_a_host_the_weights_that_it_has_alone():
    torch.manual_seed(5)
    expected = alone().state_dict()
    torch.manual_seed(5)
    found = wrapped().host.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_logits_are_divided_by_the_temperature_and_labels_stay(image):
    net = wrapped()
    before = logits(net, image)
    with torch.no_grad():
        net.log_temperature.fill_(torch.tensor(2.0).log())
    after = logits(net, image)
    torch.testing.assert_close(after, before / 2)
    assert torch.equal(after.argmax(1), before.argmax(1))


def test_while_training_the_auxiliary_logits_of_the_host_come_through(image):
    out = wrapped().train()(torch.cat([image, image]))
    assert set(out.aux) == {"fcn"}


def test_a_wrapper_takes_the_sources_that_its_host_takes(image):
    net = create_model("temperature", host={"name": "fc_siam", "width": 4}, num_classes=2)
    assert [spec.name for spec in make_card(net, classes="ab").inputs] == ["image", "before"]
    assert logits(net, Inputs(image, {"before": image})).shape == (1, 2, 65, 97)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "host: temperature needs a network to wrap"),
        ({"host": "fcnn"}, "host.name = \"fcnn\": unknown network - did you mean 'fcn'"),
        ({"host": "center"}, "gives CentersAndOffsets; temperature wraps networks that give SemanticLogits"),
        ({"host": {"name": "temperature", "host": "fcn"}}, 'host.name = "temperature": temperature cannot wrap itself'),
        ({"host": {**SMALL, "chanels": 3}}, "host.chanels = 3: unknown key - did you mean 'channels'"),
        ({"host": {**SMALL, "output_stride": 5}}, "host.encoder.output_stride = 5: resnet18_w8 can have 8, 16, 32"),
        ({"host": {**SMALL, "num_classes": 5}}, "host.num_classes = 5: a host has that of temperature"),
        ({"host": SMALL, "tempreture": 1}, "tempreture = 1: unknown key"),
        ({"host": 3}, "host = 3: expected a network's name or a group of its keys"),
        ({"host": {"channels": 8}}, "host.name: expected a network's name"),
    ],
)
def test_a_host_that_cannot_be_is_told(fields, told):
    with pytest.raises(UsageError) as caught:
        create_model("temperature", num_classes=3, **fields)
    assert told in str(caught.value)


def test_an_encoder_beside_the_host_is_sent_to_the_host():
    known = ("host", "encoder_weights")
    for key in ("encoder", "output_stride"):
        found = in_section(Problem(key=key, message="unknown"), "model", known, hosted=True)
        assert (found.key, found.message.endswith(f"did you mean 'host.{key}'?")) == (f"model.{key}", True)


def test_an_encoder_of_a_network_that_has_none_to_choose_is_told():
    for words in (("model.encoder=resnet18",), ("model.encoder=null",)):
        with pytest.raises(ConfigError, match="this network has no encoder to choose: leave the key out"):
            Config.load("unet_shapes", "model.name=erfnet", *words)


def test_a_host_of_a_network_that_wraps_none_is_told():
    with pytest.raises(
        UsageError, match="unet wraps no other network; those that do: knet, afma, irnet, temperature, reference_class"
    ):
        create_model("unet", num_classes=3, host="fcn")


def test_a_finished_host_of_other_classes_or_channels_is_told():
    with pytest.raises(UsageError, match="num_classes=4: the host has 3"):
        create_model("temperature", host=alone(), num_classes=4)
    with pytest.raises(UsageError, match="in_channels=1: the host takes 3"):
        create_model("temperature", host=alone(), in_channels=1)
    with pytest.raises(UsageError, match=r"no \.config"):
        create_model("temperature", host=torch.nn.Conv2d(3, 3, 1))


def test_weights_that_do_not_fit_the_host_are_told(tmp_path: Path):
    save_pretrained(alone(channels=16), tmp_path / "wide", classes="abc")
    with pytest.raises(WeightsError, match="channels = 16 in the file, 8 here"):
        start_from(wrapped(), tmp_path / "wide")
    save_pretrained(create_model("unet", width=4, num_classes=3), tmp_path / "other", classes="abc")
    with pytest.raises(UsageError, match="holds a unet, but the network is a temperature around a fcn"):
        start_from(wrapped(), tmp_path / "other")


def test_a_host_of_another_class_count_gets_a_new_classifier(tmp_path: Path):
    save_pretrained(alone(), tmp_path / "three", classes="abc")
    net = create_model("temperature", host=SMALL, num_classes=5)
    report = start_from(net, tmp_path / "three")
    assert {"host.classifier.weight", "host.aux_head.classifier.weight"} <= set(report.replaced)
    assert not any("encoder" in name for name in report.replaced)


def test_a_wrapper_starts_from_a_wrapper(tmp_path: Path, image):
    net = wrapped()
    with torch.no_grad():
        net.log_temperature.fill_(0.25)
    save_pretrained(net, tmp_path / "w", classes="abc")
    other = wrapped()
    assert "log_temperature" in start_from(other, tmp_path / "w").loaded
    assert torch.equal(logits(other, image), logits(net, image))


def test_what_is_set_of_the_encoder_reaches_that_of_the_host(tmp_path: Path):
    net, single = wrapped(), alone()
    assert net.encoder is net.host.encoder
    torch.save(single.encoder.state_dict(), tmp_path / "encoder.pth")
    load_encoder_weights(net, str(tmp_path / "encoder.pth"))
    assert torch.equal(net.host.encoder.conv1.weight, single.encoder.conv1.weight)
    assert published_statistics(net) == published_statistics(single)
    config = OptimizerConfig(encoder_lr_factor=0.1, layer_decay=0.5)
    rates = [{group["lr"] for group in parameter_groups(made, config, lr=1.0)} for made in (net, single)]
    assert rates[0] == rates[1]
    assert len(rates[0]) > 4


def test_the_fast_form_of_a_wrapper_gives_its_logits(image):
    net = wrapped().eval()
    specs = make_card(net, classes="abc").inputs
    for precision, limit in (("fp32", 1e-5), ("bf16", 0.05)):
        found, expected = logits(fast_form(net, specs, precision), image), logits(net, image)
        assert (found.float() - expected).abs().max() <= limit * expected.abs().max()
