"""segatlas.models.espnet."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from segatlas.build.network import build_empty, create_model, make_config
from segatlas.build.saving import save_pretrained
from segatlas.build.starting import start_from
from segatlas.errors import UsageError, WeightsError
from segatlas.models.espnet import ARCHITECTURE, DILATIONS, SpatialPyramid


@pytest.mark.parametrize(
    ("name", "fields", "count"),
    [
        ("espnet_q3", {}, 202_649),
        ("espnet_q5", {}, 267_417),
        ("espnet_q8", {}, 364_569),
        ("espnet_c_q3", {}, 187_529),
        ("espnet_c_q5", {}, 252_297),
        ("espnet_c_q8", {}, 349_449),
        ("espnet_q8", {"num_classes": 11, "image_in_skip": True}, 354_517),
    ],
)
def test_parameters_are_those_of_the_published_files(name, fields, count):
    config = make_config(name, {"num_classes": 19, "ignored_output": True, **fields})
    assert sum(parameter.numel() for parameter in build_empty(*config).parameters()) == count


def test_a_pyramid_adds_its_dilations_up_but_for_the_first():
    torch.manual_seed(0)
    block = SpatialPyramid(10, 13).eval()
    x = torch.randn(1, 10, 9, 11)
    with torch.no_grad():
        y = block.reduce(x)
        maps = [
            F.conv2d(y, conv.weight, padding=d, dilation=d) for d, conv in zip(DILATIONS, block.dilated, strict=True)
        ]
        sums = [maps[0], maps[1], maps[1] + maps[2], maps[1] + maps[2] + maps[3], sum(maps[1:])]
        torch.testing.assert_close(block(x), block.norm(torch.cat(sums, 1)))
    assert [len(conv.weight) for conv in block.dilated] == [5, 2, 2, 2, 2]


def test_images_in_blue_green_red_are_turned_round_once():
    torch.manual_seed(0)
    net = create_model("espnet", num_classes=5, **ARCHITECTURE.tiny).eval()
    other = create_model("espnet", num_classes=5, **ARCHITECTURE.tiny, bgr=True).eval()
    other.load_state_dict(net.state_dict())
    x = torch.randn(1, 3, 40, 48)
    with torch.no_grad():
        assert torch.equal(net(x).logits, other(x.flip(1)).logits)


def test_one_output_more_is_kept_and_left_out_of_the_logits():
    torch.manual_seed(0)
    for decoder in (True, False):
        fields = {**ARCHITECTURE.tiny, "decoder": decoder, "channels": 6}
        net = create_model("espnet", num_classes=5, ignored_output=True, **fields).eval()
        x = torch.randn(1, 3, 40, 48)
        with torch.no_grad():
            outputs = net.classifier(net.decode(net.encoder(x)))
            assert outputs.shape[1] == 6
            assert torch.equal(net(x).logits, outputs[:, :5])


def test_an_espnet_pads_and_an_espnet_c_does_not():
    net = create_model("espnet", num_classes=5, **ARCHITECTURE.tiny).eval()
    short = create_model("espnet", num_classes=5, **ARCHITECTURE.tiny, decoder=False).eval()
    with torch.no_grad():
        out, deep = net(torch.randn(1, 3, 33, 47)), short(torch.randn(1, 3, 33, 47))
    assert (out.canvas, out.logits.shape[-2:]) == ((40, 48), (40, 48))
    assert (deep.canvas, deep.logits.shape[-2:], deep.resample.align_corners) == ((33, 47), (5, 6), True)


def test_the_decoder_is_as_wide_as_the_outputs_are_many_and_never_thinner_than_five():
    for classes, ignored, width in ((2, False, 5), (19, True, 20), (11, False, 11)):
        _, config = make_config("espnet", {"num_classes": classes, "ignored_output": ignored})
        assert config.decoder_channels == width
    for fields in ({"channels": 4}, {"widths": (16, 4, 128)}):
        with pytest.raises(UsageError, match=f"{next(iter(fields))}: got"):
            create_model("espnet", num_classes=5, **fields)


@pytest.mark.parametrize(("classes", "taken"), [(6, True), (7, False)])
def test_training_with_a_decoder_begins_with_an_espnet_c_whose_classifier_leads_into_it(classes, taken, tmp_path):
    torch.manual_seed(0)
    first = create_model("espnet", num_classes=6, **ARCHITECTURE.tiny, decoder=False)
    save_pretrained(first, tmp_path / "first", classes=list("abcdef"))
    net = create_model("espnet", num_classes=classes, **ARCHITECTURE.tiny)
    new = net.state_dict()["deep.0.weight"].clone()
    report = start_from(net, tmp_path / "first")
    ours, theirs = net.state_dict(), first.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours if name.startswith("encoder."))
    assert torch.equal(ours["deep.0.weight"], theirs["classifier.weight"] if taken else new)
    assert set(report.loaded) | set(report.replaced) == ours.keys()
    assert {name.split(".")[0] for name in report.replaced} == {"deep", "middle", "join", "up", "conv", "classifier"}
    assert ("deep.0.weight" in report.loaded) == taken


def test_an_espnet_c_does_not_begin_with_an_espnet(tmp_path):
    whole = create_model("espnet", num_classes=6, **ARCHITECTURE.tiny)
    save_pretrained(whole, tmp_path / "whole", classes=list("abcdef"))
    with pytest.raises(WeightsError, match="decoder = True in the file, False here"):
        start_from(create_model("espnet", num_classes=6, **ARCHITECTURE.tiny, decoder=False), tmp_path / "whole")
