"""What a higher layer of a recipe takes out of lower ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segatlas.errors import ConfigError
from segatlas.recipe import Config


def layered(tmp_path: Path, below: str, above: str = "seed: 0", *words: str) -> Config:
    (tmp_path / "below.yaml").write_text(below, encoding="utf-8")
    (tmp_path / "above.yaml").write_text(f"base: below.yaml\n{above}\n", encoding="utf-8")
    return Config.load(tmp_path / "above.yaml", *words)


PAIRS: list[tuple[str, str, dict[str, Any]]] = [
    ("train: {epochs: 50}", "train.steps=300", {"train.steps": 300, "train.epochs": None}),
    ("train: {steps: 600, epochs: null}", "train.epochs=3", {"train.steps": None, "train.epochs": 3}),
    ("train: {val_every: 150}", "train.val_epochs=2", {"train.val_every": None, "train.val_epochs": 2}),
    ("train: {val_epochs: 2}", "train.val_every=150", {"train.val_every": 150, "train.val_epochs": 1}),
    (
        "model: {input: {mode: slide, crop: [8, 8], stride: [4, 4]}}",
        "model.input.mode=whole",
        {"model.input.crop": None, "model.input.stride": None},
    ),
    ("run: {dir: runs/one}", "run.name=two", {"run.dir": None, "run.name": "two"}),
]


def value(cfg: Config, key: str) -> Any:
    found: Any = cfg
    for part in key.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(("below", "word", "expected"), PAIRS)
def test_of_keys_that_exclude_each_other_the_one_of_the_higher_layer_counts(tmp_path, below, word, expected):
    key, _, text = word.partition("=")
    nested = f"{key.replace('.', ': {')}: {text}{'}' * key.count('.')}"
    for cfg in (layered(tmp_path, below, "seed: 0", word), layered(tmp_path, below, nested)):
        assert {key: value(cfg, key) for key in expected} == expected


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("train.steps=3", "train.epochs=2"), "train.epochs"),
        (("train.val_every=3", "train.val_epochs=2"), "train.val_epochs"),
    ],
)
def test_keys_that_exclude_each_other_in_one_layer_are_an_error_in_any_order(words, key, order):
    with pytest.raises(ConfigError) as caught:
        Config.load({"train": {"steps": 9}}, *words[::order])
    assert [problem.key for problem in caught.value.problems] == [key]


def test_a_length_set_to_null_beside_the_other_one_is_still_good():
    train = Config.load({"train": {"epochs": 50}}, "train.epochs=null", "train.steps=300").train
    assert (train.epochs, train.steps) == (None, 300)


UNET = """
model:
  {name: unet, encoder: resnet34, decoder_channels: [64, 32], encoder_weights: r34.pth, num_classes: 3, aux: true}
"""


def test_another_network_leaves_out_what_lower_layers_wrote_for_the_earlier_one_and_says_so(tmp_path, caplog):
    for cfg in (
        layered(tmp_path, UNET, "seed: 0", "model.name=segformer_b0"),
        layered(tmp_path, UNET, "model: {name: segformer_b0}"),
    ):
        assert cfg.model.architecture_fields() == {"aux": True}
        assert (cfg.model.name, cfg.model.encoder_weights, cfg.model.num_classes) == ("segformer_b0", None, 3)
    (first, second) = [record.getMessage() for record in caplog.records]
    assert first == second
    assert first.startswith("model.name is segformer_b0: left out what was written for unet: encoder = ")
    assert "below.yaml:3" in first
    assert "encoder_weights" in first


def test_what_is_stated_with_the_name_or_above_it_stays(tmp_path, caplog):
    cfg = layered(tmp_path, UNET, "model: {name: fcn, encoder: resnet50}", "model.channels=64")
    assert cfg.model.architecture_fields() == {"aux": True, "encoder": {"name": "resnet50"}, "channels": 64}
    for words in (("model.encoder=mit_b1", "model.name=segformer"), ("model.name=segformer", "model.encoder=mit_b1")):
        assert layered(tmp_path, UNET, "seed: 0", *words).model.architecture_fields()["encoder"] == {"name": "mit_b1"}
    assert "encoder = " not in caplog.text


def test_the_same_name_again_and_parts_that_name_no_network_change_nothing(tmp_path, caplog):
    cfg = layered(tmp_path, UNET, "model: {name: unet}", "model.name=unet")
    assert cfg.model.architecture_fields()["decoder_channels"] == [64, 32]
    part = layered(tmp_path, "model: {encoder: resnet50, channels: 64}", "model: {name: fcn}")
    assert part.model.architecture_fields() == {"encoder": {"name": "resnet50"}, "channels": 64}
    assert not caplog.records


def test_imagenet_weights_are_asked_for_whatever_the_encoder_is(tmp_path):
    base = "model: {name: fcn_r50, encoder_weights: imagenet}"
    assert layered(tmp_path, base, "model: {name: fcn_r101}").model.encoder_weights == "imagenet"


SHAPES = """
data:
  {name: folder, root: some/where, classes: [sky, road], label_map: {0: 0, 7: 1}, ignore: [255, 9], channels: 4,
   accept: [leakage], workers: 3, val_fraction: 0.3}
"""


def test_another_data_set_leaves_out_what_lower_layers_wrote_for_the_earlier_one_and_says_so(tmp_path, caplog):
    for cfg in (
        layered(tmp_path, SHAPES, "seed: 0", "data.name=voc"),
        layered(tmp_path, SHAPES, "data: {name: voc}"),
    ):
        data = cfg.data
        assert (data.own_fields(), data.channels, data.accept) == ({}, None, ())
        assert (data.name, data.root, data.workers) == ("voc", "some/where", 3)
    (first, second) = [record.getMessage() for record in caplog.records]
    assert first == second
    assert first.startswith('data.name is voc: left out what was written for folder: classes = ["sky", "road"] (')
    assert '; kept what was written for folder: root = "some/where" (' in first
    assert "below.yaml:3" in first


def test_what_is_stated_with_the_name_of_a_data_set_stays_and_is_not_told(tmp_path, caplog):
    below = "data: {name: shapes, root: some/where, channels: 4, accept: [leakage], workers: 3}"
    above = (
        "data: {name: folder, root: own, classes: [a, b, c], ignore: [255], channels: 3, accept: [], label_map: null}"
    )
    cfg = layered(tmp_path, below, above)
    assert (cfg.data.root, cfg.data.classes) == ("own", ("a", "b", "c"))
    assert not caplog.records


def test_the_same_data_set_again_and_a_section_without_a_name_change_nothing(tmp_path, caplog):
    assert layered(tmp_path, SHAPES, "data: {name: folder}", "data.name=folder").data.classes == ("sky", "road")
    part = layered(tmp_path, "data: {root: some/where, classes: [a, b]}", "seed: 0", "data.name=folder")
    assert (part.data.root, part.data.classes) == ("some/where", ("a", "b"))
    assert not caplog.records


def test_a_folder_whose_layout_a_command_guessed_keeps_its_root_without_a_word(caplog):
    cfg = Config.load({"data": {"name": "camvid", "root": "some/where"}}, "data.name=folder")
    assert (cfg.data.name, cfg.data.root) == ("folder", "some/where")
    assert not caplog.records
