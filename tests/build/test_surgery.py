"""Layers are cut as a table says; a table that does not fit its network is refused, every fault named."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from segatlas.build.assembling import assemble
from segatlas.build.network import create_model
from segatlas.build.saving import make_card, save_pretrained
from segatlas.build.starting import start_from
from segatlas.build.surgery import layer_sizes, resize, surgery_of
from segatlas.conversion.converting import export_file
from segatlas.errors import UsageError, WeightsError

CLASSES = ("a", "b", "c")
TABLE = {
    "encoder.levels.0.0.conv": (3, 3, 1),
    "encoder.levels.0.0.bn": (3, 3, 1),
    "encoder.levels.0.1.conv": (3, 4, 1),
    "decoder.3.convs.1.conv": (4, 2, 1),
    "decoder.3.convs.1.bn": (2, 2, 1),
    "classifier": (2, 3, 1),
}
"""Of a plain U-Net of width 4: a channel less inside its first level, two before the classifier."""


def unet(seed: int = 0, **fields) -> nn.Module:
    torch.manual_seed(seed)
    return create_model("unet", **{"num_classes": 3, "width": 4, **fields})


def cut(seed: int = 0, table=TABLE, **fields) -> nn.Module:
    net = unet(seed, **fields)
    resize(net, table, where="here")
    return net.eval()


@pytest.fixture
def folder(tmp_path):
    return save_pretrained(cut(), tmp_path / "cut", classes=CLASSES)


def test_layers_keep_their_first_channels_and_run():
    whole, net = unet(), cut()
    assert {name: layer_sizes(net)[name] for name in TABLE} == TABLE
    assert torch.equal(net.classifier.weight, whole.classifier.weight[:, :2])
    assert net(torch.zeros(1, 3, 16, 16)).logits.shape == (1, 3, 16, 16)
    assert surgery_of(net) == TABLE


def test_every_kind_of_layer_is_cut_to_what_torch_itself_makes_of_these_sizes():
    pairs = [
        (nn.Conv2d(8, 12, 3), nn.Conv2d(6, 10, 3), (6, 10, 1)),
        (nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(4, 8, 3, groups=4), (4, 8, 4)),
        (nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(5, 5, 3, groups=5), (5, 5, 5)),
        (nn.ConvTranspose2d(8, 12, 2), nn.ConvTranspose2d(7, 3, 2), (7, 3, 1)),
        (nn.Linear(8, 12, bias=False), nn.Linear(3, 5, bias=False), (3, 5, 1)),
        (nn.BatchNorm2d(8), nn.BatchNorm2d(5), (5, 5, 1)),
        (nn.PReLU(8), nn.PReLU(2), (2, 2, 1)),
    ]
    for whole, expected, sizes in pairs:
        net = nn.Sequential(whole)
        resize(net, {"0": sizes}, where="here")
        found, wanted = net[0].state_dict(), expected.state_dict()
        assert {k: x.shape for k, x in found.items()} == {k: x.shape for k, x in wanted.items()}, whole
        assert repr(net[0]) == repr(expected)


def test_frozen_layers_stay_frozen_and_a_second_cut_adds_to_the_table():
    net = unet()
    net.classifier.requires_grad_(False)
    resize(net, {"classifier": (3, 3, 1)}, where="here")
    resize(net, {"encoder.levels.0.0.conv": (3, 2, 1)}, where="here")
    assert not net.classifier.weight.requires_grad
    assert surgery_of(net) == {"classifier": (3, 3, 1), "encoder.levels.0.0.conv": (3, 2, 1)}


def test_a_card_brings_the_network_back(folder):
    card = make_card(cut(), classes=CLASSES)
    assert card.surgery == TABLE
    assert type(card).from_dict(card.to_dict()).surgery == TABLE
    net = assemble(card, cut(1).state_dict(), where="here")
    x = torch.randn(1, 3, 20, 17)
    assert torch.equal(net(x).logits, cut(1)(x).logits)
    assert make_card(net, classes=CLASSES).surgery == TABLE


WRONG = {
    "encoder.levels.9.conv": (3, 3, 1),
    "encoder": (3, 3, 1),
    "encoder.levels.0.0.conv": (3, 5, 1),
    "encoder.levels.0.1.conv": (4, 4, 3),
    "decoder.3.convs.1.bn": (2, 3, 1),
    "": (1, 1, 1),
}
TOLD = (
    "encoder.levels.9.conv: the network has no such layer",
    "encoder: a PlainEncoder, which cannot be cut",
    "encoder.levels.0.0.conv: 3 in, 5 out, 1 groups, expected 1 or more each and at most 3 in, 4 out, 1 groups",
    "encoder.levels.0.1.conv: 4 in, 4 out, 3 groups, expected",
    "decoder.3.convs.1.bn: 2 in, 3 out, 1 groups are no sizes of a BatchNorm2d",
    ": a PlainUNet, which cannot be cut",
)


def test_a_table_that_does_not_fit_is_refused_with_every_fault_and_nothing_is_cut():
    net = unet()
    before = layer_sizes(net)
    with pytest.raises(WeightsError, match=r"evil/card\.json: its card's surgery does not fit its network") as error:
        resize(net, WRONG, where="evil/card.json")
    assert all(told in str(error.value) for told in TOLD)
    assert layer_sizes(net) == before
    card = dataclasses.replace(make_card(net, classes=CLASSES), surgery={"classifier": (2, 3, 1)})
    with pytest.raises(WeightsError, match=r"classifier.weight: file 3x4x1x1, network 3x2x1x1"):
        assemble(card, net.state_dict(), where="here")


@pytest.mark.parametrize("sizes", [[0, 3, 1], [-1, 3, 1], [2**40, 3, 1], [2, 3], [2.5, 3, 1], "2, 3, 1", None])
def test_numbers_that_no_layer_has_are_refused_when_the_card_is_read(sizes):
    card = make_card(unet(), classes=CLASSES)
    with pytest.raises(WeightsError, match=r"surgery\.classifier"):
        type(card).from_dict({**card.to_dict(), "surgery": {"classifier": sizes}})


def test_a_training_that_begins_with_a_cut_network_has_its_shapes(folder):
    net = unet(1)
    report = start_from(net, folder)
    assert report.replaced == ()
    assert surgery_of(net) == TABLE
    assert all(torch.equal(x, cut().state_dict()[name]) for name, x in net.state_dict().items())


def test_with_other_classes_only_the_classifier_stays_new_and_reads_fewer_channels(folder):
    net = unet(1, num_classes=7)
    assert start_from(net, folder).replaced == ("classifier.weight", "classifier.bias")
    assert net.classifier.weight.shape == (7, 2, 1, 1)
    assert surgery_of(net) == {**TABLE, "classifier": (2, 7, 1)}
    assert net(torch.zeros(1, 3, 16, 16)).logits.shape == (1, 7, 16, 16)


def test_a_network_inside_a_wrapper_becomes_as_narrow(folder, tmp_path):
    net = create_model("temperature", host={"name": "unet", "width": 4}, num_classes=3)
    start_from(net, folder)
    expected = {f"host.{name}": sizes for name, sizes in TABLE.items()}
    assert surgery_of(net) == expected
    back = assemble(make_card(net, classes=CLASSES), net.state_dict(), where="here")
    assert surgery_of(back) == expected


def test_what_a_cut_network_cannot_serve_for_is_refused_by_name(folder, tmp_path):
    with pytest.raises(UsageError, match=r"a pruned network without auxiliary heads.* model\.aux=false"):
        start_from(unet(aux=True), folder)
    with pytest.raises(WeightsError, match=r"surgery does not fit(?s:.)*config differs: width = 4 in the file, 2 here"):
        start_from(unet(width=2), folder)
    with pytest.raises(WeightsError, match=r"a pruned network, 6 layers of it are narrower than any unet of"):
        export_file(folder, tmp_path / "theirs.pth", to="smp")
