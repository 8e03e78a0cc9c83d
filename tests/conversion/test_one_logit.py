from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from fakes.foreign import foreign_state, small_network, write_checkpoint

import segatlas as sa
from segatlas.build.network import build_network, create_model, make_config
from segatlas.build.saving import save_pretrained
from segatlas.checkpoint.card import Card
from segatlas.conversion.converting import convert_file, tensors_of
from segatlas.conversion.one_logit import names_of_two, require_second_class, with_background
from segatlas.errors import UsageError, WeightsError

CFG = """
model = dict(
    decode_head=dict(type='SegformerHead', num_classes=2, out_channels=1, threshold=0.2, align_corners=False))
"""


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def one_logit(source, **fields):
    """A network whose logit has both signs."""
    net = small_network(source, num_classes=1, **fields)
    with torch.no_grad():
        net.classifier.weight.normal_()
        net.classifier.bias.zero_()
        x = torch.randn(1, 3, 64, 96)
        net.classifier.bias.sub_(net(x).logits.median())
    return net, x


def full_logit(net, x):
    """The logit at the image's size, as the library upsamples it."""
    out = net(x)
    return torch.nn.functional.interpolate(out.logits, x.shape[-2:], mode="bilinear")[0, 0]


@pytest.mark.parametrize("source", ["smp", "hf", "mmseg"])
def test_a_network_of_one_logit_has_class_1_where_the_sigmoid_is_above_the_threshold(tmp_path, source):
    net, x = one_logit(source)
    file = write_checkpoint(tmp_path / "one.pth", foreign_state(source, net))
    done = convert_file(file, tmp_path / "out")
    predictor = sa.load(done.folder, device="cpu")
    threshold = 0.3 if source == "mmseg" else 0.5  # MMSegmentation's default is not the half
    constant = torch.logit(torch.tensor(threshold))
    with torch.inference_mode():
        own, found = net(x).logits[:, 0], predictor.model(x).logits
        assert torch.allclose(found[:, 1], own, atol=1e-5)
        assert torch.allclose(found[:, 0], constant.expand_as(own))
        logit = full_logit(net, x)
        labels, above = predictor.scores(x)[0].argmax(dim=0), logit.sigmoid() > threshold
    sure = (logit - constant).abs() > 1e-4
    assert torch.equal(labels[sure].bool(), above[sure])
    assert 0.05 < above.float().mean() < 0.95
    assert done.card.classes == ("background", "foreground")
    [told] = [note for note in done.notes if note.startswith("one logit a pixel")]
    assert f"wins where its sigmoid is above {threshold:g}" in told
    assert any(f"threshold = {threshold} (published default" in note for note in done.notes)


def test_a_threshold_is_read_from_settings_and_can_be_stated(tmp_path):
    net, x = one_logit("mmseg")
    meta = {"cfg": CFG, "dataset_meta": {"classes": ["ground", "house"], "palette": [[1, 2, 3], [4, 5, 6]]}}
    file = write_checkpoint(tmp_path / "one.pth", foreign_state("mmseg", net), meta)
    card = convert_file(file, tmp_path / "out").card
    assert (card.classes, card.palette) == (("ground", "house"), ((1, 2, 3), (4, 5, 6)))
    for key, stated in (("cfg", {}), ("stated", {"model.decode_head.threshold": 0.6})):
        folder = sa.convert(file, tmp_path / key, stated=stated)
        wanted = torch.logit(torch.tensor(0.6 if stated else 0.2))
        with torch.inference_mode():
            assert torch.allclose(sa.load(folder, device="cpu").model(x).logits[:, 0], wanted)
    smp = write_checkpoint(tmp_path / "smp.pth", foreign_state("smp", one_logit("smp")[0]))
    assert any("above 0.4" in note for note in convert_file(smp, tmp_path / "smp", stated={"threshold": 0.4}).notes)
    with pytest.raises(WeightsError, match="threshold: got 30, expected a number between 0 and 1"):
        convert_file(smp, tmp_path / "smp", stated={"threshold": 30})


def test_a_threshold_of_a_network_with_more_classes_is_no_setting(tmp_path):
    file = write_checkpoint(tmp_path / "three.pth", foreign_state("smp", small_network("smp")))
    with pytest.raises(UsageError, match="unknown setting of the unet"):
        convert_file(file, tmp_path / "out", stated={"threshold": 0.4})


def test_the_one_name_of_a_file_is_that_of_class_1(tmp_path):
    torch.save(foreign_state("hf", one_logit("hf")[0]), tmp_path / "pytorch_model.bin")
    config = {"model_type": "segformer", "id2label": {"0": "building"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert convert_file(tmp_path, tmp_path / "out").card.classes == ("background", "building")
    assert names_of_two(()) == names_of_two(("Background",)) == ("background", "foreground")


@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_biases_that_add_up_hold_the_threshold_together(threshold):
    torch.manual_seed(0)
    architecture, config = make_config("lraspp", {"num_classes": 1, "encoder": "mobilenet_v3_large"})
    tensors = build_network(architecture, config).state_dict()
    _, net = with_background(architecture, config, tensors, threshold, where="file", network="it")
    constant = torch.logit(torch.tensor(threshold))
    with torch.inference_mode():
        assert torch.allclose(net(torch.randn(1, 3, 32, 32)).logits[:, 0], constant, atol=1e-5)


def test_auxiliary_heads_get_the_second_class_too():
    torch.manual_seed(0)
    fields = {"num_classes": 1, "encoder": "resnet18_w8", "channels": 8, "aux": True, "aux_channels": 4}
    architecture, config = make_config("fcn", fields)
    tensors = build_network(architecture, config).state_dict()
    wide, net = with_background(architecture, config, tensors, 0.5, where="file", network="it")
    assert wide.num_classes == 2
    for name in ("classifier.weight", "aux_head.classifier.weight"):
        found = net.state_dict()[name]
        assert torch.equal(found[1:], tensors[name])
        assert not found[:1].any()


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ocrnet", {"encoder": "resnet18_w8", "channels": 16, "key_channels": 8}),
        ("segmenter", {"encoder": "vit_w32", "layers": 1}),
    ],
)
def test_networks_whose_classes_look_at_each_other_are_refused(name, fields):
    torch.manual_seed(0)
    architecture, config = make_config(name, {"num_classes": 1, **fields})
    tensors = build_network(architecture, config).state_dict()
    with pytest.raises(WeightsError, match=f"second class cannot be put beside the one of this {name}"):
        with_background(architecture, config, tensors, 0.5, where="file", network="it")


def test_the_way_back_writes_a_network_of_two_classes_that_reads_the_same(tmp_path):
    net, x = one_logit("smp")
    file = write_checkpoint(tmp_path / "one.pth", foreign_state("smp", net))
    folder = sa.convert(file, tmp_path / "out")
    back = sa.convert(folder, tmp_path / "back.pth", to="smp")
    assert torch.load(back, weights_only=True)["segmentation_head.0.weight"].shape[0] == 2
    again = sa.load(sa.convert(back, tmp_path / "again"), device="cpu")
    with torch.inference_mode():
        assert torch.equal(again.model(x).logits, sa.load(folder, device="cpu").model(x).logits)


def test_a_model_folder_of_one_class_is_refused_with_the_way_out_and_still_written_back(tmp_path):
    net, _ = one_logit("smp")
    old = save_pretrained(net, tmp_path / "old", classes=["class 0"])
    for use in (sa.load, lambda path: sa.evaluate(path, tmp_path)):
        with pytest.raises(WeightsError, match=r"a network of one class .*, which every pixel would be of"):
            use(old)
    written = torch.load(sa.convert(old, tmp_path / "back.pth", to="smp"), weights_only=True)
    assert all(torch.equal(written[name], tensor) for name, tensor in foreign_state("smp", net).items())


def test_objects_of_one_class_stay_one_class(tmp_path):
    torch.manual_seed(0)
    net = create_model("mask_rcnn", num_classes=1, encoder="resnet50")
    state = tensors_of("torchvision", "mask_rcnn", net.config, net.state_dict())
    card = convert_file(write_checkpoint(tmp_path / "one.pth", state), tmp_path / "out").card
    assert (card.task, len(card.classes)) == ("instance", 1)


def test_label_maps_of_queries_of_one_class_are_refused():
    card = Card(architecture="mask2former", config={}, classes=("a",), palette=((0, 0, 0),))
    with pytest.raises(WeightsError, match="file: a mask2former of one class for label maps"):
        require_second_class(card, where="file")
    require_second_class(replace(card, task="instance"), where="file")
