from __future__ import annotations

import json

import numpy as np
import pytest
from fakes.model import make_model
from PIL import Image
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.data.formats.masks import write_mask


def run(*words: object):
    return CliRunner().invoke(app, ["explain", *map(str, words)])


def last_line(result):
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "unet")


def test_fields_are_printed_and_drawn(model, tmp_path):
    facts = last_line(run("receptive-field", model, "--size", "64x64", "--out", tmp_path / "fields.png", "--json"))
    assert facts["layers"][-1]["name"] == ""
    assert Image.open(tmp_path / "fields.png").size[0] > 600
    shown = run("receptive-field", model, "--layer", "class*", "--size", "64x64")
    assert "classifier" in shown.stdout
    assert "encoder" not in shown.stdout
    heat = last_line(
        run(
            "receptive-field",
            model,
            "--effective",
            "--size",
            "48x48",
            "--inputs",
            1,
            "--out",
            tmp_path / "e.png",
            "--json",
        )
    )
    assert heat["size"] == [48, 48]
    assert Image.open(tmp_path / "e.png").size[0] > 400


def test_effective_fields_are_measured_on_own_images(model, tmp_path):
    draw = np.random.default_rng(0)
    for index, size in enumerate(((70, 90), (64, 80), (99, 99))):
        Image.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
    words = ("receptive-field", model, "--effective", "--images", tmp_path, "--inputs", 2)
    shown = run(*words, "--json")
    facts = last_line(shown)
    assert "2 images" in shown.stderr
    assert (facts["inputs"], facts["size"]) == (2, [64, 80])
    assert "is 64 x 80 for the network, expected at least 70 x 70" in run(*words, "--size", "70x70").stderr
    noise = last_line(run(*words[:3], "--inputs", 2, "--size", "64x80", "--json"))
    assert noise["side"] != facts["side"]


def test_a_chain_of_layers_is_worked_out():
    found = last_line(run("field-calculator", "7,2,3", "1x5,1x2,0x2", "--json"))
    assert [one["size"] for one in found] == [[7, 7], [7, 15]]
    assert found[-1]["jump"] == [2, 4]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("field-calculator", "0,1"), "layer 1: kernel is 0, expected at least 1"),
        (("field-calculator", "a"), "'a': expected KERNEL,STRIDE"),
        (("receptive-field", "MODEL", "--layer", "clasifier"), "nearest: classifier"),
        (("receptive-field", "MODEL", "--layer", "no*"), "no layer of that name ran"),
        (("receptive-field", "MODEL", "--size", "12"), "--size: got '12', expected HxW"),
        (("receptive-field", "MODEL", "--out", "field.jpg"), "expected a .png file"),
        (("receptive-field", "MODEL", "--effective", "--layer", "a,b"), "got 2 layers, expected one"),
        (("receptive-field", "unte"), "no such model or architecture; nearest: unet"),
        (("receptive-field", "MODEL", "--effective", "--without", "encoder"), "measures the network as it is"),
        (("receptive-field", "MODEL", "--images", "."), "--images belongs to --effective"),
        (("receptive-field", "MODEL", "--effective", "--images", "none"), "--images: none: no such file or folder"),
        (("receptive-field", "MODEL", "--effective", "--images", "."), "--images: no images in ."),
        (("errors", "MODEL", "--out", "errors", "--edge", "0"), "edge: got 0.0"),
        (("errors", "MODEL", "--out", "errors", "--tta", "flip"), "flips"),
        (("errors", "MODEL", "--out", "errors", "--score", "2"), "score: got 2.0"),
        (("errors", "MODEL", "other", "--out", "errors"), "got 2 models"),
        (("errors", "MODEL", "--out", "errors"), "lies in no run folder, so say which data"),
    ],
)
def test_bad_input_is_one_sentence(model, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    result = run(*(model if word == "MODEL" else word for word in words))
    assert result.exit_code == 2
    assert expected in " ".join(result.stderr.split())


def test_errors_of_a_split_are_counted_stored_and_shown(model, tmp_path):
    draw = np.random.default_rng(0)
    for index in range(2):
        for part in ("images", "masks"):
            (tmp_path / "data/val" / part).mkdir(parents=True, exist_ok=True)
        image = draw.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"data/val/images/{index}.png")
        label = np.zeros((48, 64), np.uint8)
        label[10:30, 20:44] = 1 + index
        write_mask(tmp_path / f"data/val/masks/{index}.png", label)
    words = ("errors", model, "--data", tmp_path / "data", "--out", tmp_path / "errors", "--json", "-q")
    facts = last_line(run(*words))
    assert facts["judged"] == 2 * 48 * 64
    assert facts["right"] + sum(facts["errors"].values()) == facts["judged"]
    stored = json.loads((tmp_path / "errors/errors.json").read_text())
    occurred = [kind for kind, count in facts["errors"].items() if count]
    assert sorted(file.stem for file in (tmp_path / "errors").glob("*.png")) == sorted(occurred)
    assert len(stored["definitions"]) == 5
    assert run(*words).exit_code == 2  # it is there already
    assert last_line(run(*words, "--overwrite"))["errors"] == facts["errors"]
