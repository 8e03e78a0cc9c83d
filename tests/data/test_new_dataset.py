"""Adding a dataset is a file and a line: one that lives in this file goes the whole way, and nothing else knows it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from fakes.images import blocks, image_of, save_codes, save_image
from pydantic import Field
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.config import to_yaml
from segatlas.config.section import Section
from segatlas.data import DATASETS
from segatlas.data.datasets.listing import SPLITS, FileListing, LabelEncoding, match_stems
from segatlas.data.datasets.paired import PairedFiles
from segatlas.data.formats.listing import list_images
from segatlas.data.formats.masks import LabelRule
from segatlas.errors import ConfigError
from segatlas.recipe import Config, dataset_keys, json_schema

CLASSES = ("field", "barn", "cow")
RULE = LabelRule(num_classes=3)


class FarmOptions(Section):
    """Which season is read."""

    season: str = Field("summer", pattern="^(summer|winter)$", description="'summer' or 'winter'")


class Farm(PairedFiles):
    """ROOT/farm.txt, ROOT/SPLIT/SEASON/STEM.png with STEM.codes.png beside it."""

    name = "farm"
    layout = "farm.txt, train/summer/STEM.png and train/summer/STEM-codes.png"
    classes = CLASSES
    palette = ((0, 128, 0), (128, 0, 0), (0, 0, 0))
    things = (False, True, True)
    options = FarmOptions

    @classmethod
    def fits(cls, root):
        return (root / "farm.txt").is_file()

    @classmethod
    def listing(cls, cfg, root: Path, splits: Sequence[str] = SPLITS):
        folders = {split: root / split / cfg.options(FarmOptions).season for split in splits}
        files = {split: list_images(folder) for split, folder in folders.items() if folder.is_dir()}
        return FileListing(
            root=root,
            name=cls.name,
            parts={split: _match(found) for split, found in files.items()},
            encoding=LabelEncoding(classes=CLASSES, palette=cls.palette),
        )

    def label_rule(self, path):
        return RULE


def _match(files):
    images = {key: paths for key, paths in files.items() if not key.endswith("-codes")}
    return match_stems(images, {k.removesuffix("-codes"): paths for k, paths in files.items() if k.endswith("-codes")})


@pytest.fixture
def farm(tmp_path, monkeypatch) -> Path:
    """Register the dataset with its one line, and write a tiny one."""
    monkeypatch.setitem(sys.modules, "tests_farm", sys.modules[__name__])
    monkeypatch.setitem(DATASETS, "farm", "tests_farm:Farm")
    root = tmp_path / "farm"
    for number, (split, season) in enumerate([("train", "summer"), ("train", "winter"), ("val", "summer")]):
        for index in range(2):
            codes = blocks(10 * number + index, range(3), (40, 48))
            save_image(root / split / season / f"{index}.png", image_of(codes, 10 * number + index))
            save_codes(root / split / season / f"{index}-codes.png", codes)
    (root / "farm.txt").write_text("a farm\n")
    return root


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_new_dataset_is_recognised_checked_counted_and_drawn(farm, tmp_path):
    checked = run("data", "check", farm)
    assert checked.exit_code == 0, checked.output
    assert "farm" in checked.stdout
    stats = run("data", "stats", farm)
    assert stats.exit_code == 0, stats.output
    assert "cow" in stats.stdout
    assert run("data", "preview", farm, "--out", tmp_path / "sheet.png").exit_code == 0
    assert run("data", "convert", farm, tmp_path / "folder").exit_code == 0
    assert (tmp_path / "folder" / "train" / "masks" / "0.png").is_file()
    next((farm / "train" / "summer").glob("*-codes.png")).unlink()
    broken = run("data", "check", farm)
    assert (broken.exit_code, "image without mask" in broken.stdout) == (1, True)


def test_a_new_dataset_is_trained_on(farm, tmp_path):
    words = (f"data.root={farm}", "data.name=farm", "data.season=winter", "train.batch=2", "transforms.crop=[32, 32]")
    dry = run("train", "unet_folder", *words, f"run.dir={tmp_path / 'run'}", "--dry-run")
    assert "split 'val' is empty" in dry.output  # there is no winter in val
    words = tuple(word for word in words if "season" not in word)
    dry = run("train", "unet_folder", *words, f"run.dir={tmp_path / 'run'}", "--dry-run")
    assert dry.exit_code == 0, dry.output


def test_the_own_keys_of_a_new_dataset_are_checked_shown_and_read_back(farm, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("data:\n  name: farm\n  season: spring\n  label_map: {0: 1}\n  seasn: summer\n")
    with pytest.raises(ConfigError) as caught:
        Config.load(path)
    found = {problem.key: (problem.line, problem.message) for problem in caught.value.problems}
    assert found["data.season"] == (3, "expected 'summer' or 'winter'")
    assert found["data.label_map"] == (
        4,
        "an option of data.name=pairs or weak or folder; data.name=farm has none such - remove it",
    )
    assert found["data.seasn"] == (5, "unknown key - did you mean 'season'?")
    path.write_text("data: {name: frm}\n")
    with pytest.raises(ConfigError, match="unknown dataset - did you mean 'farm'"):
        Config.load(path)
    cfg = Config.load({"data": {"name": "farm", "season": "winter"}})
    assert cfg.data.season == "winter"
    path.write_text(to_yaml(cfg))
    assert Config.load(path).data == cfg.data
    assert [row.key for title, rows in dataset_keys() for row in rows if "farm" in title] == ["data.season"]
    schema = json_schema()["$defs"]["DataConfig"]
    assert "season" in schema["properties"]
    assert "farm" in schema["properties"]["name"]["enum"]


def test_a_resolved_recipe_that_states_other_datasets_options_at_their_defaults_is_read(farm):
    old = {"classes": None, "palette": None, "label_map": None, "ignore": [255], "lists": None, "val_fraction": 0.2}
    assert Config.load({"data": {"name": "voc", **old}}) == Config.load({"data": {"name": "voc"}})


def test_things_are_said_for_each_class():
    from segatlas.data.datasets import ade20k, cityscapes, dataset_class, voc

    for module, count in ((cityscapes, 8), (ade20k, 100), (voc, 20)):
        kind = dataset_class(module.__name__.rsplit(".", 1)[-1])
        assert (len(kind.things), sum(kind.things)) == (len(kind.classes), count)
    assert np.flatnonzero(cityscapes.THINGS).tolist() == list(range(11, 19))
    assert dataset_class("camvid").things is None
