from __future__ import annotations

import pytest
import torch
from torch import nn

from segatlas.build.network import create_model
from segatlas.build.saving import make_card, save_pretrained
from segatlas.build.starting import start_from
from segatlas.checkpoint.preprocessing import Preprocessing
from segatlas.errors import UsageError, WeightsError

CLASSES = ("a", "b", "c")
HALF = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)


def tiny(seed: int = 0, **fields) -> nn.Module:
    torch.manual_seed(seed)
    return create_model("unet", **{"num_classes": 3, "width": 4, "aux": True, **fields})


@pytest.fixture
def earlier(tmp_path):
    return save_pretrained(tiny(0), tmp_path / "earlier", classes=CLASSES, preprocessing=HALF)


def test_with_the_same_classes_everything_is_taken_over(earlier):
    net = tiny(1)
    report = start_from(net, earlier)
    expected = tiny(0).state_dict()
    assert set(report.loaded) == set(expected)
    assert report.replaced == ()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in net.state_dict().items())


def test_with_other_classes_only_the_classifiers_stay_new_and_are_named(earlier):
    net, before = tiny(1, num_classes=5), tiny(1, num_classes=5).state_dict()
    report = start_from(net, earlier)
    assert set(report.replaced) == {
        "classifier.weight",
        "classifier.bias",
        "aux_head.classifier.weight",
        "aux_head.classifier.bias",
    }
    expected = tiny(0).state_dict()
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name] if name in report.replaced else expected[name]), name


def test_the_cards_preprocessing_is_handed_on(earlier):
    assert start_from(tiny(1), earlier).card.preprocessing == HALF


def test_a_checkpoint_and_a_bare_file_serve_too(tmp_path):
    old = tiny(0)
    torch.save(old.state_dict(), tmp_path / "w.pth")
    content = {"state_dict": {f"net.{k}": v for k, v in old.state_dict().items()}}
    torch.save({**content, "card": make_card(old, classes=CLASSES).to_dict()}, tmp_path / "best.ckpt")
    for file, has_card in (("w.pth", False), ("best.ckpt", True)):
        net = tiny(1)
        report = start_from(net, tmp_path / file)
        assert (report.card is not None) == has_card
        assert torch.equal(net.classifier.weight, old.classifier.weight)


def test_another_architecture_is_refused(earlier):
    net = create_model("segformer_b0", num_classes=3, decoder_channels=8)
    with pytest.raises(UsageError, match="holds a unet, but the network is a segformer"):
        start_from(net, earlier)


def test_another_width_is_refused_naming_the_field_and_nothing_is_changed(earlier):
    net, before = tiny(1, width=8), tiny(1, width=8).state_dict()
    with pytest.raises(WeightsError) as error:
        start_from(net, earlier)
    assert "of another shape" in str(error.value)
    assert "config differs: width = 4 in the file, 8 here" in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_file_with_a_part_missing_is_refused(tmp_path):
    state = tiny(0).state_dict()
    del state["classifier.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"1 missing in the file: classifier\.bias 3"):
        start_from(tiny(1), tmp_path / "w.pth")


def test_a_pointrend_of_another_class_count_keeps_all_but_classifiers_and_layers_over_coarse_logits(tmp_path):
    fields = {"encoder": "resnet18_w8", "neck_channels": 8, "channels": 8, "point_channels": 8}
    old = create_model("pointrend", num_classes=4, **fields)
    torch.save(old.state_dict(), tmp_path / "w.pth")
    net = create_model("pointrend", num_classes=6, **fields)
    report = start_from(net, tmp_path / "w.pth")
    assert set(report.replaced) == {
        *(f"point_head.layers.{index}.weight" for index in range(3)),
        *(f"{module}.{leaf}" for module in ("classifier", "point_head.classifier") for leaf in ("weight", "bias")),
    }
    expected = old.state_dict()
    assert all(torch.equal(net.state_dict()[name], expected[name]) for name in report.loaded)


def test_other_classes_and_queries_keep_all_that_has_not_their_number(tmp_path):
    encoder = {"name": "vit_w32", "depth": 1}
    fields = {"encoder": encoder, "query_blocks": 1}
    place = save_pretrained(create_model("eomt", num_classes=3, queries=6, **fields), tmp_path / "a", classes=CLASSES)
    report = start_from(create_model("eomt", num_classes=3, queries=4, **fields), place)
    assert set(report.replaced) == {"queries"}
    report = start_from(create_model("eomt", num_classes=5, queries=9, **fields), place)
    assert set(report.replaced) == {"queries", "classifier.weight", "classifier.bias"}
    with pytest.raises(WeightsError, match="mask_fractions"):
        start_from(
            create_model("eomt", num_classes=3, **{**fields, "encoder": {**encoder, "depth": 2}, "query_blocks": 2}),
            place,
        )


@pytest.mark.parametrize(
    ("name", "of_queries"),
    [
        ("mask2former", {"queries", "query_positions"}),
        ("maskformer", {"query_positions"}),
        ("oneformer", {"query_positions"}),
    ],
)
def test_networks_of_queries_keep_all_but_what_has_the_number_of_classes_or_queries(name, of_queries, tmp_path):
    fields = {"encoder": "swin_w8", "channels": 8, "mask_channels": 8, "heads": 2, "groups": 2, "layers": 2}
    fields |= {"pixel_layers": 1} if name == "maskformer" else {"pixel_layers": 1, "pixel_hidden": 8, "points": 2}
    place = save_pretrained(create_model(name, num_classes=3, queries=6, **fields), tmp_path / "a", classes=CLASSES)
    net = create_model(name, num_classes=5, queries=9, **fields)
    report = start_from(net, place)
    assert set(report.replaced) == {*of_queries, "classifier.weight", "classifier.bias"}
    assert set(report.loaded) | set(report.replaced) == set(net.state_dict())


def test_another_class_count_excuses_no_other_difference(tmp_path):
    torch.save(tiny(0, num_classes=5, width=8).state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="of another shape"):
        start_from(tiny(1), tmp_path / "w.pth")


def test_auxiliary_heads_that_the_earlier_model_has_not_stay_new_and_are_named(tmp_path):
    deployed = save_pretrained(tiny(0, aux=False), tmp_path / "deployed", classes=CLASSES, preprocessing=HALF)
    net, before = tiny(1), tiny(1).state_dict()
    report = start_from(net, deployed)
    heads = {name for name in before if name.startswith("aux_head")}
    assert set(report.replaced) == heads > set()
    assert all(torch.equal(net.state_dict()[name], before[name]) for name in heads)
    assert torch.equal(net.classifier.weight, tiny(0, aux=False).classifier.weight)


def test_an_auxiliary_head_that_is_there_in_part_is_refused(tmp_path):
    tensors = tiny(0).state_dict()
    head = next(name for name in tensors if name.startswith("aux_head"))
    torch.save({name: tensor for name, tensor in tensors.items() if name != head}, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match="aux_head"):
        start_from(tiny(1), tmp_path / "part.pth")
