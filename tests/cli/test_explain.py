from __future__ import annotations

import json
import os

import numpy as np
import pytest
from fakes.model import make_model
from PIL import Image
from typer.testing import CliRunner

from segatlas.cli.main import app

SIZE = (40, 56)


def run(*words: object):
    return CliRunner().invoke(app, ["explain", *map(str, words)])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "unet")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "street.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def mask(image):
    path = image.with_name("mask.png")
    array = np.zeros(SIZE, np.uint8)
    array[5:20, 10:30] = 1
    Image.fromarray(array).save(path)
    return path


def last(result) -> object:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_layers_are_listed_with_their_kinds(model):
    found = last(run("layers", model, "--json"))
    assert {"name": "classifier", "kind": "Conv2d"} in found
    listed = run("layers", model, "class*")
    assert listed.exit_code == 0
    assert listed.stdout.split() == ["classifier", "Conv2d"]
    assert "none of its" in run("layers", model, "nothing*").stdout


def test_heatmap_draws_classes_at_a_layer(model, image, tmp_path):
    out = tmp_path / "heat.png"
    words = ("--layer", "encoder.levels.2", "--class", "car", "--class", "0", "--region", "image", "--device", "cpu")
    facts = last(run("heatmap", model, image, "--out", out, *words, "--json"))
    assert facts["layer"] == "encoder.levels.2"
    assert [one["class"] for one in facts["maps"]] == ["car", "sky"]
    assert Image.open(out).size[0] > 3 * 200


@pytest.mark.parametrize("words", [("--box", "5,10,20,30"), ("--mask", "MASK")])
def test_heatmap_takes_a_box_or_a_mask(model, image, mask, tmp_path, words):
    words = [mask if word == "MASK" else word for word in words]
    out = tmp_path / "heat.png"
    facts = last(run("heatmap", model, image, "--out", out, "--class", "car", *words, "--style", "beside", "--json"))
    assert facts["region"] in ("box 5, 10, 20, 30", "mask mask.png")
    assert out.is_file()


def test_probability_and_entropy_are_drawn(model, image, tmp_path):
    facts = last(run("probability", model, image, "--out", tmp_path / "p.png", "--all", "--json"))
    assert sum(facts["means"].values()) == pytest.approx(1, abs=1e-4)
    facts = last(run("entropy", model, image, "--out", tmp_path / "e.png", "--json"))
    assert 0 < facts["mean"] <= facts["highest"] <= 1


def test_boundary_draws_one_sheet_of_several_images(model, image, tmp_path):
    out = tmp_path / "sheet.png"
    assert last(run("boundary", model, image, image, "--out", out, "--show", "map,colored", "--json"))["images"] == 2
    assert out.is_file()


def test_boundary_writes_each_map_in_the_images_size(model, image, tmp_path):
    found = last(run("boundary", model, image, "--out", tmp_path / "maps", "--palette", "voc", "--json"))
    assert len(found["files"]) == 5
    assert {Image.open(file).size for file in found["files"]} == {SIZE[::-1]}


def test_boundary_draws_label_files(image, mask, tmp_path):
    out = tmp_path / "sheet.png"
    palette = tmp_path / "colors.txt"
    palette.write_text("#000000\n#ff0000\n")
    words = ("--labels", mask, "--palette", palette, "--show", "map")
    assert run("boundary", image, "--out", out, *words).exit_code == 0
    reds = (np.asarray(Image.open(out)) == (255, 0, 0)).all(axis=2)
    assert reds.any()


FAULTS = {
    "no class": ("heatmap", ["--class", "cra"], "class: got 'cra': unknown class - did you mean 'car'?"),
    "no layer": ("heatmap", ["--layer", "encoder.levles.2"], "nearest: encoder.levels.2"),
    "outside": ("heatmap", ["--class", "car", "--box", "0,0,41,9"], "is not inside the image of 56 x 40 pixels"),
    "no box": ("heatmap", ["--box", "1,2,3"], "--box: got '1,2,3', expected four whole numbers"),
    "region": ("heatmap", ["--region", "all"], "--region: got 'all', expected predicted or image"),
    "two regions": ("heatmap", ["--region", "image", "--box", "0,0,1,1"], "give one of --region and --box"),
    "no mask": ("heatmap", ["--mask", "nothing.png"], "--mask nothing.png: no such file"),
    "style": ("heatmap", ["--style", "x"], "--style: got 'x', expected overlay or beside"),
    "aux": ("heatmap", ["--aux", "x"], "--aux x: no such file"),
    "ending": ("entropy", ["--out", "x.txt"], "--out: x.txt is no image's name"),
    "show": ("boundary", ["--show", "mpa"], "--show: got 'mpa': unknown map - did you mean 'map'?"),
    "palette": ("boundary", ["--palette", "citiscapes"], "did you mean 'cityscapes'?"),
    "classes": ("boundary", ["--classes", "voc"], "--classes names the classes of --labels and --objects"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_told_in_a_sentence(model, image, tmp_path, fault):
    command, words, message = FAULTS[fault]
    result = run(command, model, image, "--out", tmp_path / "x.png", *words)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "x.png").exists()


def test_a_mask_of_another_size_or_without_pixels_is_told(model, image, tmp_path):
    for size, message in (((3, 4), "the mask is 4 x 3 pixels, the image 56 x 40"), (SIZE, "the mask is empty")):
        Image.fromarray(np.zeros(size, np.uint8)).save(tmp_path / "mask.png")
        result = run("heatmap", model, image, "--out", tmp_path / "x.png", "--mask", tmp_path / "mask.png")
        assert result.exit_code == 1
        assert message in result.stderr


def test_an_image_that_is_not_there_or_cannot_be_read_is_told(model, tmp_path):
    result = run("entropy", model, tmp_path / "no.png", "--out", tmp_path / "x.png")
    assert result.exit_code == 2
    assert "no.png: no such file" in result.stderr
    (tmp_path / "bad.png").write_bytes(b"no image")
    for command in ("entropy", "heatmap", "probability", "boundary"):
        result = run(command, model, tmp_path / "bad.png", "--out", tmp_path / "x.png")
        assert result.exit_code == 1
        assert "bad.png" in result.stderr
        assert "Traceback" not in result.stderr


def test_a_file_that_is_there_is_replaced_only_when_asked(model, image, tmp_path):
    out = tmp_path / "x.png"
    out.write_bytes(b"mine")
    result = run("entropy", model, image, "--out", out)
    assert result.exit_code == 2
    assert "is there already; --overwrite replaces it" in " ".join(result.stderr.split())
    assert out.read_bytes() == b"mine"
    assert run("entropy", model, image, "--out", out, "--overwrite").exit_code == 0
    assert run("boundary", model, image, "--out", tmp_path / "maps").exit_code == 0
    assert "is there already" in run("boundary", model, image, "--out", tmp_path / "maps").stderr


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_told(model, image, tmp_path):
    tmp_path.chmod(0o500)
    try:
        result = run("entropy", model, image, "--out", tmp_path / "x.png")
    finally:
        tmp_path.chmod(0o700)
    assert result.exit_code == 2
    assert "cannot write to the folder" in result.stderr


def test_a_place_below_a_file_cannot_be_written(model, image):
    result = run("entropy", model, image, "--out", image / "x.png")
    assert result.exit_code == 2
    assert "cannot write to the folder" in result.stderr
