"""A network with a prior mask through the real command line: train, predict, evaluate with controls, write priors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fakes.images import save_codes, save_image
from fakes.model import make_model
from PIL import Image
from typer.testing import CliRunner

import segatlas as sa
from segatlas.cli.main import app
from segatlas.data.formats.masks import read_mask
from segatlas.data.prior_scenes import make_pairs
from segatlas.errors import UsageError
from segatlas.evaluation.tables import facts

RECIPE = """
eval: {boundary: false, sizes: false}
model:
  name: multisource
  encoder: {name: residual_w8, width: 4}
  channels: 4
  spade_hidden: 4
  groups: 2
  keypoints: 2
  coattention: [32]
  equivariance: false
  aux: false
transforms: {crop: [64, 64]}
train: {steps: 2, batch: 2, lr: 0.01}
log: {tensorboard: false, samples: 1}
"""


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join((result.stdout + result.stderr).split())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A set of generated pairs, and a network that was trained on it for two steps."""
    place = tmp_path_factory.mktemp("prior")
    make_pairs(place / "data", train=4, val=3, test=1, size=(64, 64))
    keys = f"data: {{name: pairs, root: {place / 'data'}, workers: 0, store: 'off'}}\nrun: {{dir: {place / 'run'}}}\n"
    (place / "config.yaml").write_text(RECIPE + keys)
    code, text = run("train", "--config", place / "config.yaml")
    assert code == 0, text
    make_model(place / "plain")
    return place


def predicted(place, file, *words):
    image = place / "data/val/images/0000.png"
    return run("predict", place / "run", "--input", image, "--output", file, *words)


def test_the_card_lists_the_prior_as_optional_codes_of_the_classes(place):
    card = json.loads((place / "run/model/card.json").read_text())
    assert card["inputs"][1] == {"name": "prior", "kind": "label", "channels": 1, "required": False, "codes": 4}
    assert "codes" not in card["inputs"][0]


def test_a_path_alone_is_the_one_source_and_without_it_the_model_runs_too(place, tmp_path):
    prior = place / "data/val/prior/0000.png"
    files = {"named": ("--aux", f"prior={prior}"), "alone": ("--aux", prior), "none": ()}
    for name, words in files.items():
        code, text = predicted(place, tmp_path / f"{name}.png", *words)
        assert code == 0, text
    named, alone, without = (read_mask(tmp_path / f"{name}.png") for name in files)
    assert np.array_equal(named, alone)
    ours = sa.load(place / "run", device="cpu")
    image = place / "data/val/images/0000.png"
    assert np.array_equal(named, ours.predict(image, sources={"prior": prior}).semantic)
    assert np.array_equal(without, ours.predict(image).semantic)
    empty = save_codes(tmp_path / "empty.png", np.full((64, 64), 255))
    code, text = predicted(place, tmp_path / "ignored.png", "--aux", tmp_path / "empty.png")
    assert (code, empty) == (0, None), text
    assert np.array_equal(read_mask(tmp_path / "ignored.png"), without)  # a prior that says nothing is none


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--aux", "{prior}", "--aux", "{prior}"), 2, "--aux: several without a name"),
        (("--aux", "{prior}", "--aux", "prior={prior}"), 2, "--aux: prior is given twice, with and without its name"),
        (("--aux", "{place}/no.png"), 2, "/no.png: no such file or folder"),
        (("--aux", "mask={prior}"), 2, "a source 'mask' is given, which the model does not take; besides the image"),
        (("--aux", "=x"), 2, "--aux: got '=x', expected NAME=PATH"),
        (("--aux", "{small}"), 1, "source prior is 9 x 8 pixels, the image"),
        (("--aux", "{colors}"), 1, "colors.png: holds colours; expected codes 0..255"),
        (("--aux", "{codes}"), 1, "codes.png: holds the codes 4, 7; expected one of 4 classes, 0..3, or 255"),
        (("--aux", "{broken}"), 1, "broken.png: "),
    ],
)
def test_a_wrong_number_name_kind_or_size_of_sources_is_told(place, tmp_path, words, code, message):
    save_codes(tmp_path / "small.png", np.zeros((8, 9), np.int64))
    save_codes(tmp_path / "codes.png", np.tile([0, 4, 7, 255], (64, 16)))
    save_image(tmp_path / "colors.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    (tmp_path / "broken.png").write_bytes(b"no image")
    files = {name: tmp_path / f"{name}.png" for name in ("small", "colors", "codes", "broken")}
    given = [word.format(prior=place / "data/val/prior/0000.png", place=tmp_path, **files) for word in words]
    got, text = predicted(place, tmp_path / "m.png", *given)
    assert (got, message in text) == (code, True), text
    assert not (tmp_path / "m.png").exists()


def test_a_prior_is_not_overwritten_by_the_mask_that_is_made_with_it(place, tmp_path):
    before = (place / "data/val/prior/0000.png").read_bytes()
    (tmp_path / "prior.png").write_bytes(before)
    for word in ("", "prior="):
        code, text = predicted(place, tmp_path / "prior.png", "--aux", f"{word}{tmp_path / 'prior.png'}")
        assert (code, "would be overwritten; choose another place" in text) == (2, True), text
    (tmp_path / "0000_mask.png").write_bytes(before)
    words = ("--aux", tmp_path / "0000_mask.png", "--out", tmp_path)
    code, text = run("predict", place / "run", place / "data/val/images/0000.png", *words)
    assert (code, "would be overwritten; choose another place" in text) == (2, True), text
    assert (tmp_path / "prior.png").read_bytes() == (tmp_path / "0000_mask.png").read_bytes() == before


@pytest.mark.parametrize(
    ("word", "message"),
    [("{prior}", "the model takes an image alone"), ("prior={prior}", "besides the image the model takes nothing")],
)
def test_aux_for_a_model_of_one_image_is_refused(place, tmp_path, word, message):
    words = ("--aux", word.format(prior=place / "data/val/prior/0000.png"))
    image = place / "data/val/images/0000.png"
    code, text = run("predict", place / "plain", "--input", image, "--output", tmp_path / "m.png", *words)
    assert (code, message in text) == (2, True), text


def test_explain_takes_a_path_alone_too(place, tmp_path):
    words = ("--aux", place / "data/val/prior/0000.png", "--out", tmp_path / "p.png")
    code, text = run("explain", "probability", place / "run", place / "data/val/images/0000.png", *words)
    assert code == 0, text


def test_controls_score_the_model_without_its_source_and_with_that_of_another_image(place):
    found = {}
    for how in ("", "absent", "shuffled:5"):
        words = ("--source", f"prior={how}") if how else ()
        code, text = run("eval", place / "run", *words, "--json", "--quiet", "--no-boundary", "--no-sizes")
        assert code == 0, text
        found[how], _ = json.JSONDecoder().raw_decode(text)  # warnings come behind it
        report = json.loads(Path(found[how]["report"]).read_text(encoding="utf-8"))
        assert report["settings"]["sources"] == ({"prior": how} if how else {})
        assert {row["class"] for row in report["per_class"]} == {"ground", "disc", "square", "triangle"}
    assert len({one["report"] for one in found.values()}) == 3
    absent = sa.evaluate(place / "run", sources={"prior": "absent"}, boundary=False, sizes=False, progress=False)
    assert absent.miou == pytest.approx(found["absent"]["miou"])
    assert any("source prior: absent, a control" in line for _, lines in facts(absent) for line in lines)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("prior", "got 'prior', expected NAME=absent, NAME=shuffled or NAME=shuffled:SEED"),
        ("prior=gone", "got prior=gone, expected"),
        ("prior=absent:3", "got prior=absent:3, expected"),
        ("mask=absent", "no source of the model; besides the image it takes prior"),
    ],
)
def test_a_wrong_control_is_told(place, word, message):
    code, text = run("eval", place / "run", "--source", word)
    assert (code, message in text) == (2, True), text
    with pytest.raises(UsageError, match="takes nothing"):
        sa.evaluate(place / "plain", str(place / "data"), sources={"prior": "absent"}, progress=False)


def test_priors_are_written_as_the_model_predicts_them_and_train_another_network(place, tmp_path):
    code, text = run("data", "make-priors", place / "run", tmp_path / "priors", "--json", "--quiet")
    assert code == 0, text
    assert json.loads(text) == {"out": str(tmp_path / "priors"), "train": 4, "val": 3, "test": 1}
    ours, file = sa.load(place / "run", device="cpu"), tmp_path / "priors/val/0002.png"
    sources = {"prior": place / "data/val/prior/0002.png"}
    assert np.array_equal(read_mask(file), ours.predict(place / "data/val/images/0002.png", sources=sources).semantic)
    assert Image.open(file).mode == "P"
    code, text = run("data", "make-priors", place / "run", tmp_path / "priors")
    assert (code, "exists and is not empty" in text) == (1, True), text


def test_preview_shows_the_prior_beside_the_image(place, tmp_path):
    code, text = run("data", "preview", place / "data", "--count", "1", "--out", tmp_path / "sheet.png")
    assert code == 0, text
    wide = Image.open(tmp_path / "sheet.png").width
    code, text = run("data", "preview", place / "data", "data.name=folder", "--count", "1", "--out", tmp_path / "f.png")
    assert Image.open(tmp_path / "f.png").width < wide


def test_data_without_the_source_train_with_a_warning(place, tmp_path):
    words = ("data.name=folder", f"run.dir={tmp_path / 'run'}", "--dry-run")
    code, text = run("train", "--config", place / "config.yaml", *words)
    assert code == 0, text


def test_a_partial_start_is_refused_with_the_tensors_unless_asked_for(place, tmp_path):
    words = ("train", "--config", place / "config.yaml", f"model.start_from={place / 'run'}", "model.spade=false")
    code, text = run(*words, f"run.dir={tmp_path / 'run'}")
    assert code == 1, text
    assert "does not fit the multisource" in text
    assert "missing in the file: decoder." in text
    assert "not in the network: decoder." in text
    assert "config differs: spade = True in the file, False here" in text
    assert "--partial (model.start_partial=true) takes the" in text
    code, text = run(*words, f"run.dir={tmp_path / 'run'}", "--partial")
    assert code == 0, text
    log = (tmp_path / "run/log.txt").read_text()
    assert "tensors of the network stay new: decoder." in log
    assert "tensors of the file are left out: decoder." in log
    code, text = run("train", "--config", place / "config.yaml", "--partial", "--dry-run")
    assert (code, "there is no file to begin with" in text) == (2, True), text
