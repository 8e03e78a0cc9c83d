"""Faults in recipes and on the command line: exit code 2, everything named, nothing written."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    """Work in a folder of its own, which must stay empty."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    yield
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("train:\n\tepochs: 3\n", ["line 2", "a tab"]),
        ("train:\n  epochs: many\n", ["line 2", 'train.epochs = "many"']),
        ("train:\n  epoch: 3\n", ["line 2", "train.epoch = 3", "did you mean 'epochs'"]),
        ("model:\n  name: unett\n", ["line 2", 'model.name = "unett"', "did you mean 'unet'"]),
        (
            "model:\n  name: unet\n  encoder: resnett34\n",
            ["line 3", 'model.encoder = "resnett34"', "did you mean 'resnet34'"],
        ),
        ("model:\n  name: unet\n  withd: 4\n", ["line 3", "model.withd = 4", "did you mean 'width'"]),
        ("losses: [dicee]\n", ["line 1", 'losses.0.name = "dicee"', "did you mean 'dice'"]),
        ("train: {epochs: 0}\n", ["line 1", "train.epochs = 0"]),
        ("", ["the file is empty"]),
        ("a: [1\n", ["line"]),
        ("- 1\n", ["expected `key: value` lines"]),
    ],
)
@pytest.mark.parametrize("command", [("train",), ("config", "check")], ids=["train", "config check"])
def test_a_fault_in_a_recipe_is_named_with_its_line(segatlas, tmp_path, command, text, messages):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    result = segatlas(*command, path)
    assert result.exit_code == 2
    for message in messages:
        assert message in result.output, result.output
    assert "nothing was started" in result.output


def test_all_faults_are_told_at_once_those_of_the_network_too(segatlas):
    words = ["model.name=unet", "model.withd=4", "train.lr=fast", "data.name=foldr", "los=1", "train.epochs=-1"]
    result = segatlas("train", "unet_folder", *words)
    assert result.exit_code == 2
    for key in ("model.withd", "train.lr", "data.name", "los", "train.epochs"):
        assert f"{key} = " in result.stderr, result.stderr
    assert "5 problems" in result.stderr


def test_binary_text_and_folders_are_no_recipes(segatlas, tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    for given, message in (
        (("train", tmp_path / "binary.yaml"), "is not text in UTF-8 (byte"),
        (("train", "--config", tmp_path), "a folder, expected"),
    ):
        result = segatlas(*given)
        assert result.exit_code == 2
        assert message in result.stderr
    result = segatlas("train", tmp_path)
    assert result.exit_code == 1
    assert "holds binary.yaml" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["train", "nosuch"],
            2,
            "nosuch: no such folder, and no recipe of that name; `segatlas config schema --recipes` lists",
        ),
        (["train", "unet_shape"], 2, "no such folder, and no recipe of that name; nearest recipe: unet_shapes"),
        (["trian"], 2, "Did you mean 'train'?"),
        (["train"], 2, "which recipe? For example: segatlas train unet_folder data.root=DIR"),
        (["train", "unet_folder"], 2, "data.root is not set; the folder dataset needs a folder with train/images/"),
        (["train", "unet_folder", "unet_shapes"], 2, "expected KEY=VALUE, got 'unet_shapes'"),
        (["train", "unet_folder", "train.epochs"], 2, "expected KEY=VALUE, got 'train.epochs'"),
        (["train", "unet_folder", "train.epochs="], 2, "no value"),
        (["train", "--config", "nosuch.yaml"], 2, "no such file"),
        (["train", "--resume", "last"], 2, "nothing to resume"),
        (["train", "--resume", "nowhere"], 2, "nothing to resume: nowhere is not a run folder"),
        (["train", "--resume", "nowhere.ckpt"], 2, "nothing to resume: nowhere.ckpt does not exist"),
        (["train", "unet_folder", "--devices", "0"], 2, "train.devices"),
        (["predict"], 2, "Missing argument 'model'"),
        (["predict", "nowhere"], 2, "which images, and where to? give files, folders or globs and --out DIR"),
        (["predict", "nowhere", "--out", "out"], 2, "which images?"),
        (["eval"], 2, "Missing argument"),
        (["eval", "nowhere"], 1, "nowhere: no such file or folder"),
        (["models", "info", "unett"], 2, "unet"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_end_with_a_message_and_nothing_is_written(segatlas, words, code, message):
    result = segatlas(*words)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.split())
