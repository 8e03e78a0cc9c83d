"""A network of two dates through the real command line: train, eval, predict; and what is told where it cannot."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from fakes.images import save_image
from fakes.pairs import write_pairs
from PIL import Image
from typer.testing import CliRunner

import segatlas as sa
from segatlas.cli.main import app
from segatlas.errors import ConfigError, UsageError
from segatlas.recipe import Config

SHORT = (
    "model.width=4",
    "model.dropout=0",
    "transforms={crop: [32, 48], flip: 0.5, turns: false}",
    "train={epochs: 12, val_epochs: 12, batch: 3, lr: 0.01, schedule: {warmup: 1}}",
    "data.workers=0",
    "log.tensorboard=false",
)


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join((result.stdout + result.stderr).split())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("pairs")
    write_pairs(place / "data")
    code, text = run("train", "fc_siam_pairs", f"data.root={place / 'data'}", f"run.dir={place / 'run'}", *SHORT)
    assert code == 0, text
    return place


def test_a_run_of_two_dates_writes_a_card_that_lists_them(place):
    card = json.loads((place / "run/model/card.json").read_text())
    assert [(one["name"], one["kind"], one["required"]) for one in card["inputs"]] == [
        ("image", "image", True),
        ("before", "image", True),
    ]
    assert (place / "run/report.html").is_file()


def test_evaluation_gives_the_score_of_the_run_and_takes_views(place):
    scored = json.loads((place / "run/eval.json").read_text())
    code, text = run("eval", place / "run", "--json", "--out", place / "again")
    assert code == 0, text
    assert sa.evaluate(place / "run", progress=False).miou == pytest.approx(scored["summary"]["miou"], abs=1e-6)
    assert sa.evaluate(place / "run", tta="flips", progress=False).miou > 0.4


def test_evaluation_on_data_without_the_earlier_date_is_refused_before_it_begins(place, tmp_path):
    root = shutil.copytree(place / "data", tmp_path / "plain")
    for split in ("train", "val"):
        shutil.rmtree(root / split / "before")
    with pytest.raises(UsageError, match="takes the source 'before' \\(image\\); folder gives: none"):
        sa.evaluate(place / "run", str(root), progress=False)


def test_predict_takes_a_file_for_one_image_and_a_folder_for_many(place, tmp_path):
    later, earlier = place / "data/val/images", place / "data/val/before"
    code, text = run("predict", place / "run", later, "--aux", f"before={earlier}", "--out", tmp_path / "many")
    assert code == 0, text
    one = ("--aux", f"before={earlier / '100.png'}", "--save", "mask,confidence", "--window", "64")
    code, text = run("predict", place / "run", later / "100.png", *one, "--out", tmp_path / "one")
    assert code == 0, text
    code, text = run(
        "predict", place / "run", "--input", later / "100.png", "--output", tmp_path / "m.png", *one[:2]
    )  # fmt: skip
    assert code == 0, text
    masks = [np.asarray(Image.open(tmp_path / name)) for name in ("many/100_mask.png", "one/100_mask.png", "m.png")]
    ours = sa.load(place / "run", device="cpu").predict(later / "100.png", sources={"before": earlier / "100.png"})
    for mask in masks:
        assert np.array_equal(mask, ours.semantic)
    turned = sa.load(place / "run", device="cpu").predict(earlier / "100.png", sources={"before": later / "100.png"})
    assert not np.array_equal(turned.semantic, ours.semantic)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "no source 'before' is given; besides the image the model takes before (an image of 3 channels)"),
        (
            ("--aux", "befor={before}"),
            2,
            "no source 'before' is given, but a source 'befor' is given, which the model does not take; besides the "
            "image the model takes before (an image of 3 channels)",
        ),
        (("--aux", "before={before}", "--aux", "more={before}"), 2, "a source 'more' is given"),
        (("--aux", "before={before}/100.png"), 2, "one file for 2 images"),
        (("--aux", "before={small}"), 1, "source before is 9 x 8 pixels, the image"),
        (("--aux", "before={few}"), 2, "no file 101.* for"),
        (("--aux", "before={five}"), 1, "expects 3 channels, the image has 5"),
    ],
)
def test_a_wrong_count_name_size_or_kind_is_told(place, tmp_path, words, code, message):
    for name, stems, shape in (("small", (100, 101), (8, 9, 3)), ("few", (100,), (32, 48, 3))):
        for stem in stems:
            save_image(tmp_path / name / f"{stem}.png", np.zeros(shape, np.uint8))
    for stem in (100, 101):  # five pages of one channel
        pages = [Image.fromarray(np.zeros((32, 48), np.uint8)) for _ in range(5)]
        (tmp_path / "five").mkdir(exist_ok=True)
        pages[0].save(tmp_path / f"five/{stem}.tif", save_all=True, append_images=pages[1:])
    folders = {name: tmp_path / name for name in ("small", "few", "five")} | {"before": place / "data/val/before"}
    given = [word.format(**folders) for word in words]
    got, text = run("predict", place / "run", place / "data/val/images", "--out", tmp_path / "o", *given)
    assert (got, message in text) == (code, True), text


@pytest.mark.parametrize("fault", ["text", "empty", "deep", "far"])
def test_an_aux_file_that_cannot_be_used_is_told_with_one_path(place, tmp_path, fault):
    content = {"text": b"no image", "empty": b""}.get(fault)
    file = tmp_path / "before.png"
    if content is not None:
        file.write_bytes(content)
    else:
        file = tmp_path / "before.tif"
        values = np.full((32, 48), 1000, np.uint16) if fault == "deep" else np.ones((32, 48), np.float32)
        Image.fromarray(values).save(file)
    later = place / "data/val/images/100.png"
    words = ("predict", place / "run", later, "--aux", f"before={file}", "--out", tmp_path / "o", "--json")
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 1
    (failed,) = json.loads(result.stdout)["failed"]
    assert failed["source"] == str(later)
    assert failed["error"].startswith(f"{file}: ")
    assert result.stderr.startswith(f"failed: {file}: ")
    assert str(later) not in result.stderr


def test_a_recipe_whose_dataset_lacks_the_source_is_told_before_the_run(place):
    with pytest.raises(ConfigError, match=r'data\.name = "folder" .*takes the source .before. \(image\)'):
        Config.load("fc_siam_pairs", "data.name=folder", f"data.root={place / 'data'}", *SHORT)


def test_a_network_of_one_image_gets_none_of_the_sources(place):
    words = ("data.name=pairs", f"data.root={place / 'data'}", "model.encoder=null", "model.width=4", *SHORT[2:])
    from segatlas.training.building import build_parts

    parts = build_parts(Config.load("unet_folder", *words), dry=True)
    assert len(parts.card.inputs) == 1
    sample = parts.train.load(0)
    assert (list(sample.sources), dict(parts.pipeline(sample, np.random.default_rng(0)).sources)) == (["before"], {})


def test_the_plain_network_says_what_it_needs(place):
    predictor = sa.load(place / "run", device="cpu")
    with pytest.raises(UsageError, match="needs the source 'before'"):
        predictor.model(torch.zeros(1, 3, 32, 48))
    with pytest.raises(UsageError, match="no source 'before' is given"):
        predictor.scores(torch.zeros(1, 3, 32, 48))
    with pytest.raises(UsageError, match="no source 'before' is given"):
        predictor.predict(place / "data/val/images/100.png")


def test_data_check_reads_the_same_listing(place, tmp_path):
    root = shutil.copytree(place / "data", tmp_path / "d")
    assert run("data", "check", root)[0] == 0
    (root / "train/before/002.png").unlink()
    code, text = run("data", "check", root)
    assert code == 1
    assert "no image of the earlier date" in text


def test_a_dry_run_says_the_shapes_of_both_dates(place, tmp_path):
    code, text = run(
        "train", "fc_siam_pairs", f"data.root={place / 'data'}", f"run.dir={tmp_path / 'run'}", *SHORT, "--dry-run"
    )
    assert code == 0, text
    assert "batch: images (3, 3, 32, 48), before (3, 3, 32, 48), labels (3, 32, 48)" in text
