"""Sets of one object are trained with two outputs and with one, and volumes go the whole way, through the commands."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
from fakes.isic2018 import write_isic2018
from fakes.lits import volume, write_lits
from typer.testing import CliRunner

from segatlas.checkpoint.card import Card
from segatlas.cli.main import app
from segatlas.structures import VolumeSlices

NARROW = ("model.encoder=resnet18_w8", "model.decoder_channels=[8,8,8,8]")
UNET = "{name: unet, encoder: resnet18_w8, decoder_channels: [8,8,8,8]}"


def call(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def trained(recipe, root, run, *words):
    small = ("train.batch=2", "train.epochs=2", "transforms.crop=[32,32]", "train.device=cpu", "train.threads=1")
    where = (f"data.root={root}", f"run.dir={run}", "data.workers=0", "data.store=off", "eval.split=val")
    call("train", recipe, *where, *small, "model.encoder_weights=null", "log.tensorboard=false", *words)
    return run


@pytest.mark.parametrize(
    ("recipe", "network"),
    [
        pytest.param("unet_isic2018", NARROW, marks=pytest.mark.slow),
        ("reference_class_isic2018", (f"model.host={UNET}",)),
    ],
)
def test_a_binary_set_is_trained_scored_and_predicted_with_two_outputs_and_with_one(tmp_path, recipe, network):
    write_isic2018(tmp_path / "data", counts={"Training": 3, "Validation": 2})
    run = trained(recipe, tmp_path / "data", tmp_path / "run", *network)
    stored = json.loads((run / "eval.json").read_text())
    assert stored["classes"] == ["background", "lesion"]
    line = json.loads(call("eval", run, "--json", "--device", "cpu").stdout.splitlines()[-1])
    assert line["miou"] == pytest.approx(stored["miou"])
    images = tmp_path / "data" / "ISIC2018_Task1-2_Validation_Input"
    call("predict", run, images, "--out", tmp_path / "out", "--device", "cpu", "--save", "mask,confidence")
    assert len([*(tmp_path / "out").glob("*_mask.png")]) == 2


@pytest.fixture(scope="module")
def lits(tmp_path_factory):
    home = tmp_path_factory.mktemp("lits")
    root = write_lits(home / "data", count=3)
    return root, trained("unet_lits", root, home / "run", *NARROW)


def test_a_run_on_volumes_keeps_in_its_card_how_they_were_cut(lits):
    run = lits[1]
    assert Card.read(run / "model").slices == VolumeSlices()
    assert json.loads((run / "eval.json").read_text())["images"][0]["key"].endswith("/0000")
    for words in (("eval", run), ("data", "make-priors", run, run.parent / "priors")):
        told = call(*words, "data.window=[-100, 400]", "--device", "cpu", code=2)
        assert "the model learned from axis 2 with -250..250" in told.stderr.replace("\n", " ")
    assert not (run.parent / "priors").exists()


def test_a_volume_is_predicted_slice_by_slice_with_its_affine(lits, tmp_path):
    root, run = lits
    file = root / "test-volume-0.nii.gz"
    done = call("predict", run, file, "--out", tmp_path, "--device", "cpu", "--json")
    facts = json.loads(done.stdout.splitlines()[-1])["volumes"][0]
    written, source = nibabel.load(tmp_path / "test-volume-0_mask.nii.gz"), nibabel.load(file)
    labels = np.asarray(written.dataobj)
    assert np.array_equal(written.affine, source.affine)
    assert (labels.shape, labels.dtype, facts["axis"]) == (source.shape, np.uint8, 2)
    assert sum(facts["voxels"].values()) == labels.size
    from segatlas.inference import load

    predictor = load(run, device="cpu")
    values = volume(100)[0]
    for index in (0, 3):
        image = ((np.clip(values[:, :, index].T, -250, 250) + 250) / 500).astype(np.float32)
        assert np.array_equal(predictor.predict(image).semantic, labels[:, :, index].T)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.png",), "test-volume-0.nii.gz is a volume and"),
        (("--save", "overlay"), "of a volume the label volume is written, --save mask"),
        (("--volume-window", "3"), "--volume-window: got '3', expected LOW,HIGH"),
        (("--zip", "a.zip"), "--zip is for images; volumes are predicted without"),
    ],
)
def test_what_makes_no_sense_with_a_volume_is_refused(lits, tmp_path, words, message):
    root, run = lits
    told = call("predict", run, root / "test-volume-0.nii.gz", "--out", tmp_path / "out", *words, code=2)
    assert message in told.stderr.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_a_volume_that_cannot_be_used_is_told_and_the_rest_goes_on(lits, tmp_path):
    root, run = lits
    bad = tmp_path / "bad.nii"
    bad.write_bytes(b"no volume" * 100)
    told = call(
        "predict", run, bad, root / "test-volume-0.nii.gz", "--out", tmp_path / "out", "--device", "cpu", code=1
    )
    assert "bad.nii: is no NIfTI volume" in told.output.replace("\n", "")
    assert (tmp_path / "out" / "test-volume-0_mask.nii.gz").is_file()
