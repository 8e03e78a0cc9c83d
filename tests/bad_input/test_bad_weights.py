"""Weights files that are damaged, of another network, or would run code: through predict, eval and start_from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from fakes.bad_files import noise, write_attack
from fakes.model import make_model
from PIL import Image


@pytest.fixture
def predict(segatlas, tmp_path):
    """Predict one image with a model; the output folder must stay without a file."""
    Image.fromarray(noise()).save(tmp_path / "a.png")

    def run(model: Path):
        result = segatlas("predict", model, tmp_path / "a.png", "--out", tmp_path / "out")
        assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
        return result

    return run


@pytest.fixture
def start(train, folder, tmp_path):
    """Train from given weights; no run may be made."""

    def run(path: Path, *words: str):
        result = train(folder, f"model.start_from={path}", *words)
        assert not (tmp_path / "run").exists()
        return result

    return run


def test_a_pickle_that_would_run_code_does_not_run(predict, start, segatlas, tmp_path):
    trace = tmp_path / "trace"
    attack = write_attack(tmp_path / "evil.ckpt", trace)
    torch.load(attack, weights_only=False)
    assert trace.exists(), "the attack is a real one"
    trace.unlink()
    named = tmp_path / "evil.pth"
    shutil.copy(attack, named)
    legacy = tmp_path / "legacy.ckpt"
    torch.save({"card": _Runs(trace)}, legacy, _use_new_zipfile_serialization=False)
    for result in (
        predict(attack),
        predict(legacy),
        start(attack),
        start(named),
        start(legacy),
        segatlas("eval", attack, "--data", tmp_path / "set"),
        segatlas("models", "info", attack),
    ):
        assert not trace.exists()
        assert result.exit_code in (1, 2)
        assert str(tmp_path) in result.stderr
    assert f"{attack}: holds no card" in predict(attack).stderr


class _Runs:
    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return (exec, (f"open({str(self.trace)!r}, 'w').close()",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty (0 bytes)"),
        (b"just some text", "a text file, not weights"),
        (b"\x00\x01\x02" * 10, "neither a safetensors nor a torch file"),
        (b"PK\x03\x04" + b"\0" * 50, "truncated torch file"),
        (b"\x80\x02garbage", "damaged"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ],
)
def test_a_file_that_holds_no_weights_is_named_with_its_fault(predict, start, tmp_path, content, message):
    path = tmp_path / "net.ckpt"
    path.write_bytes(content)
    for result in (predict(path), start(path)):
        assert result.exit_code == 1
        assert f"error: {path}: {message}" in result.stderr


def test_a_cut_model_file_is_named(predict, start, model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    for result in (predict(broken), start(broken)):
        assert result.exit_code == 1
        assert f"error: {weights}: truncated or damaged safetensors file" in result.stderr


def test_a_changed_model_file_is_refused_by_its_hash(predict, model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    weights = bytearray((broken / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (broken / "model.safetensors").write_bytes(weights)
    result = predict(broken)
    assert result.exit_code == 1
    assert "its sha256 differs from the one in card.json" in result.stderr


def test_weights_of_another_architecture_are_refused_with_both_names(start, predict, tmp_path):
    from segatlas.build.network import create_model
    from segatlas.build.saving import save_pretrained

    other = tmp_path / "other"
    fields = {"encoder": "mit_b0"}
    save_pretrained(create_model("segformer", num_classes=3, **fields), other, classes=("a", "b", "c"))
    result = start(other)
    assert result.exit_code == 2
    assert f"{other}: holds a segformer, but the network is a unet" in result.stderr
    assert "override   model.start_from" in result.stderr


def test_a_card_of_another_architecture_than_its_weights_names_the_tensors(predict, model, tmp_path):
    wrong = tmp_path / "wrong"
    shutil.copytree(model, wrong)
    card = json.loads((wrong / "card.json").read_text())
    card["config"]["width"] = 8
    (wrong / "card.json").write_text(json.dumps(card))
    result = predict(wrong)
    assert result.exit_code == 1
    assert "does not fit the unet of its card" in result.stderr
    assert "of another shape: " in result.stderr


def test_weights_of_another_width_are_refused_with_the_fields_that_differ(start, tmp_path):
    other = make_model(tmp_path / "wide", width=8)
    result = start(other)
    assert result.exit_code == 1
    assert "config differs: width = 8 in the file, 4 here" in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "holds a list, expected an object"),
        ('{"architecture": "unett"}', "not a valid card"),
        ('{"version": 99}', "card version 99; this SegAtlas reads version 1"),
    ],
)
def test_a_faulty_card_is_named(predict, model, tmp_path, text, message):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "card.json").write_text(text)
    result = predict(broken)
    assert result.exit_code == 1
    assert f"{broken / 'card.json'}: {message}" in result.stderr


def test_an_unknown_architecture_in_a_card_names_the_nearest(predict, model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    card = (broken / "card.json").read_text().replace('"architecture": "unet"', '"architecture": "unett"')
    (broken / "card.json").write_text(card)
    result = predict(broken)
    assert result.exit_code == 1
    assert "did you mean 'unet'" in result.stderr


def test_a_folder_without_a_model_and_a_run_without_one_are_told_apart(predict, tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "config.yaml").write_text("seed: 1\n")
    assert "neither a model folder" in predict(tmp_path / "plain").stderr
    assert "this run has no model yet" in predict(tmp_path / "young").stderr
