"""Files of ESPNet and ESPNetV2: which outputs are classes, and the authors' own files where they lie on this disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.authors_files import espnet_files
from fakes.golden import digest, filled_state, golden_input, hollow
from fakes.shared import shared_data

from segatlas.build.network import build_empty, make_config
from segatlas.conversion.converting import convert_file, export_file, tensors_of
from segatlas.errors import UsageError, WeightsError
from segatlas.evaluation import evaluate
from segatlas.files import sha256
from segatlas.hub.loading import load_pretrained

DIGESTS = json.loads((Path(__file__).parent / "espnet_files.json").read_text(encoding="utf-8"))
"""Stem of a published file -> its hash, and what the authors' code makes of it: `tools/authors_espnet.py --goldens`."""
SMALL = {
    "espnet": {"widths": (8, 12, 16), "blocks": (1, 1)},
    "espnetv2": {"widths": (16, 32, 48, 64), "blocks": (1, 1)},
}


def authors_file(path: Path, name: str, **fields) -> Path:
    """Write a small network under the authors' names."""
    record, config = make_config(name, {**SMALL[name], **fields})
    source = "edgenets" if name == "espnetv2" else name
    theirs = tensors_of(source, name, config, hollow(build_empty(record, config).state_dict()))
    tensors = filled_state({key: value.contiguous() for key, value in theirs.items()})
    torch.save({key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}, path)
    return path


@pytest.mark.parametrize(
    ("name", "classes", "data", "mean", "resize"),
    [
        ("espnet", 19, "bicycle", 73.15840149, "512x1024"),
        ("espnet", 11, "Bicyclist", 104.99073696, "360x480"),
        ("espnetv2", 19, "bicycle", 0.485 * 255, "512x1024"),
    ],
)
def test_the_output_for_pixels_without_a_label_is_kept_and_never_predicted(tmp_path, name, classes, data, mean, resize):
    file = authors_file(tmp_path / "a.pth", name, num_classes=classes, ignored_output=True)
    done = convert_file(file, tmp_path / "out")
    assert (len(done.card.classes), done.card.classes[-1], done.card.licence) == (classes, data, "MIT")
    assert done.card.preprocessing.mean[0] * 255 == pytest.approx(mean)
    assert done.card.preprocessing.resize == resize
    assert any(f"the last of {classes + 1} outputs is for pixels without a label" in note for note in done.notes)
    assert any(f"resized to {resize}, as published (--set size=HxW" in note for note in done.notes)
    net, _ = load_pretrained(tmp_path / "out")
    whole = convert_file(file, tmp_path / "whole", stated={"last_output": "class", "size": "own"})
    assert whole.card.classes == (*done.card.classes, "ignored")
    assert whole.card.preprocessing.resize is None
    assert not any("resized" in note for note in whole.notes)
    every, _ = load_pretrained(tmp_path / "whole")
    x = golden_input((1, 3, 40, 48)).float()
    with torch.no_grad():
        few, many = net.eval()(x).logits, every.eval()(x).logits
    assert (few.shape[1], many.shape[1]) == (classes, classes + 1)
    assert torch.equal(few, many[:, :classes])
    with pytest.raises(WeightsError, match="last_output: got 'both', expected class or ignored"):
        convert_file(file, tmp_path / "no", stated={"last_output": "both"})


def test_outputs_of_no_published_file_are_all_classes_unless_it_is_stated(tmp_path):
    file = authors_file(tmp_path / "a.pth", "espnet", num_classes=7)
    done = convert_file(file, tmp_path / "seven")
    assert len(done.card.classes) == 7
    assert any("all 7 outputs are classes" in note for note in done.notes)
    assert any("no published file has 7 outputs" in note for note in done.notes)
    done = convert_file(file, tmp_path / "six", stated={"last_output": "ignored"})
    assert len(done.card.classes) == 6
    voc = convert_file(authors_file(tmp_path / "v.pth", "espnetv2", num_classes=21), tmp_path / "voc")
    assert (voc.card.classes[0], voc.card.preprocessing.resize) == ("background", "384x384")


def test_the_name_of_an_espnetv2s_file_tells_the_size_of_its_images_unless_another_is_stated(tmp_path):
    file = authors_file(tmp_path / "espnetv2_s_0.5_city_512x256.pth", "espnetv2", num_classes=19, ignored_output=True)
    done = convert_file(file, tmp_path / "named")
    assert done.card.preprocessing.resize == "256x512"
    assert "size = 256x512, as the name of the file says" in done.notes
    other = convert_file(file, tmp_path / "stated", stated={"size": "own"})
    assert other.card.preprocessing.resize is None
    assert not any("size" in note for note in other.notes)


def test_images_are_turned_round_for_an_espnet_unless_it_is_stated_that_they_are_not(tmp_path):
    file = authors_file(tmp_path / "a.pth", "espnet", num_classes=19, ignored_output=True)
    convert_file(file, tmp_path / "bgr")
    convert_file(file, tmp_path / "rgb", stated={"bgr": False})
    x = golden_input((1, 3, 40, 48)).float()
    with torch.no_grad():
        one, other = (load_pretrained(tmp_path / name)[0].eval() for name in ("bgr", "rgb"))
        assert torch.equal(one(x).logits, other(x.flip(1)).logits)
        assert not torch.equal(one(x).logits, other(x).logits)


@pytest.mark.parametrize("name", SMALL)
def test_a_file_comes_back_as_it_was_with_the_output_that_is_never_predicted(tmp_path, name):
    file = authors_file(tmp_path / "a.pth", name, num_classes=19, ignored_output=True)
    convert_file(file, tmp_path / "out")
    export_file(tmp_path / "out", tmp_path / "back.pth", to="edgenets" if name == "espnetv2" else name)
    before, back = (torch.load(path, weights_only=True) for path in (file, tmp_path / "back.pth"))
    unused = {key for key in before if key.endswith("_0.eesp.module_act.weight")}
    assert before.keys() == back.keys()
    assert len(unused) == (3 if name == "espnetv2" else 0)
    assert all(torch.equal(before[key], back[key]) for key in before.keys() - unused)


def test_an_espnetv2_of_other_channels_is_not_written(tmp_path):
    record, config = make_config("espnetv2", {**SMALL["espnetv2"], "num_classes": 5, "in_channels": 4})
    with pytest.raises((UsageError, WeightsError), match="takes images of 3 channels, this one 4"):
        tensors_of("edgenets", "espnetv2", config, hollow(build_empty(record, config).state_dict()))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if "q_3" in name or "s_0.5_city_1" in name else pytest.mark.slow) for name in DIGESTS],
)
def test_the_authors_files_give_the_logits_of_the_authors_code(tmp_path, name):
    file, expected = espnet_files() / f"{name}.pth", DIGESTS[name]
    if not file.is_file() or sha256(file) != expected["sha256"]:
        pytest.skip(f"{file} is not there, or another than was compared")
    whole = convert_file(file, tmp_path / "out", stated={"last_output": "class"})
    net, card = load_pretrained(whole.folder)
    unused = sum(above - below for below, above in zip(net.config.widths, net.config.widths[1:], strict=False))
    unused = unused if card.architecture == "espnetv2" else 0  # activations that are held and never run
    assert sum(parameter.numel() for parameter in net.parameters()) + unused == expected["parameters"]
    with torch.no_grad():
        x = golden_input((1, 3, 64, 96)) / (255 if card.architecture == "espnet" else 1)
        found, wanted = digest(net.double().eval()(x).logits), expected["logits"]
    assert found["shape"] == wanted["shape"]
    limit = 1e-6 * wanted["absmax"]
    assert all(abs(found[fact] - wanted[fact]) <= limit for fact in ("mean", "std", "absmax"))
    assert all(abs(found["at"][place] - value) <= limit for place, value in wanted["at"].items())


@pytest.mark.slow
def test_the_authors_file_for_camvid_has_their_accuracy(tmp_path):
    file = espnet_files() / "espnet_p_2_q_8_camvid.pth"
    words = [f"data.root={shared_data('camvid')}"]
    convert_file(file, tmp_path / "eleven")
    convert_file(file, tmp_path / "twelve", stated={"last_output": "class"})
    plain = evaluate(tmp_path / "eleven", "unet_camvid", "test", overrides=words, boundary=False, progress=False)
    assert plain.miou == pytest.approx(0.572275, abs=1e-5)
    words.append("data.grouping=segnet_12")
    counts = evaluate(tmp_path / "twelve", "unet_camvid", "test", overrides=words, boundary=False, progress=False)
    ious = [row["iou"] for row in counts.per_class]
    assert np.mean(ious[:11]) == pytest.approx(0.556653, abs=1e-5)
