"""An instance network goes through the same commands as a semantic one: the recipe center_shapes on a few images."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import resume_campaign
from segatlas.cli.main import app
from segatlas.data import create_dataset
from segatlas.data.shapes import SHAPES, make_shapes
from segatlas.errors import DataError
from segatlas.recipe import Config
from segatlas.training.module import SegmentationModule


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "shapes"
    make_shapes(root, train=4, val=3, test=1, size=(48, 64))
    return root


def words(shapes, run):
    return [
        "train", "center_shapes", f"data.root={shapes}", f"run.dir={run}", "data.workers=0", "data.store=null",
        "model.width=4", "model.dropout=0.2", "transforms.crop=[32, 32]", "train.batch=2", "train.epochs=2",
        "train.val_epochs=1",
    ]  # fmt: skip


def call(*arguments):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "whole"
    call(*words(shapes, run))
    return run


def test_training_watches_f1_and_eval_gives_a_table_of_it(run):
    assert "instance_f1" in (run / "metrics.csv").read_text().splitlines()[0]
    line = json.loads(call("eval", run, "--json").stdout.splitlines()[-1])
    assert isinstance(line["instance_f1"], float)
    assert next(iter(line["per_class_instance_f1"])) == "ground"
    shown = call("eval", run).output
    assert "F1" in shown
    last = shown[shown.rindex("class  ") :]  # many columns are two tables, counts in the last
    assert {"F1", "AP75", "B-AP"} <= set(shown.split())
    table = [row.split() for row in last.splitlines()]
    counts = [row[-1] for row in table if row and row[0] in (*SHAPES, "all")]
    assert len(counts) > 1
    assert sum(map(int, counts[:-1])) == int(counts[-1])  # counts in every row, and their sum in the last
    assert not [row for row in table if row[:1] == ["ground"]]
    assert "no objects, true or predicted: ground" in shown


@pytest.mark.parametrize("option", [("--tta", "flips")])
def test_test_time_augmentation_is_wrong_usage_of_predict_and_eval(run, shapes, tmp_path, option):
    for line in (["predict", run, shapes / "val" / "images"], ["eval", run]):
        result = CliRunner().invoke(app, [str(word) for word in [*line, "--out", tmp_path / "out", *option]])
        assert result.exit_code == 2, result.output
        told = "test-time augmentation is for class maps; center gives CentersAndOffsets"
        assert f"{option[0][2:]}: {told}" in " ".join(result.stderr.split())
        assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_codes_of_class_masks_are_refused_for_the_task_not_for_class_names(run, shapes, tmp_path):
    words = ["predict", str(run), str(shapes / "val" / "images"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*words, "--format", "cityscapes-ids"])
    assert result.exit_code == 2
    told = "--format cityscapes-ids is about masks of classes; the model's task is instance, which is written as "
    assert told + "instances,overlay" in " ".join(result.stderr.split())
    assert "Cityscapes classes" not in result.stderr


def test_predict_writes_a_map_of_objects_that_agrees_with_its_list(run, shapes, tmp_path):
    call("predict", run, shapes / "val" / "images", "--out", tmp_path, "--save", "instances,overlay,json")
    files = sorted(tmp_path.glob("*_instances.png"))
    assert len(files) == 3
    for file in files:
        ids = np.asarray(Image.open(file))
        assert ids.shape == (48, 64)
        stem = file.name.removesuffix("_instances.png")
        objects = json.loads((tmp_path / f"{stem}.json").read_text())["objects"]
        drawn = np.unique(ids[ids > 0])
        assert len(drawn) == len(objects)
        assert sorted(drawn // 1000) == sorted(one["index"] for one in objects)
        width, height = Image.open(tmp_path / f"{stem}_overlay.png").size  # with the legend below
        assert (width >= 64, height > 48) == (True, True)


def test_a_run_that_was_killed_in_an_epoch_ends_with_the_weights_of_one_that_was_not(run, shapes, tmp_path):
    original, cut = SegmentationModule.training_step, tmp_path / "cut"

    def training_step(self, batch, batch_index):
        if self.global_step == 3:
            raise KeyboardInterrupt
        return original(self, batch, batch_index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", training_step)
        assert CliRunner().invoke(app, words(shapes, cut)).exit_code != 0
    call("train", "--resume", cut)
    assert resume_campaign.differences(run, cut) == []


def test_shapes_gives_the_objects_of_its_instances_folder(shapes):
    data = create_dataset(Config.load("center_shapes", f"data.root={shapes}").data, "val", target="InstancesTarget")
    for index in range(len(data)):
        target = data.load(index).target
        ids = np.asarray(Image.open(shapes / "val" / "instances" / data.files(index)[1].name))
        assert len(target.masks) == len(np.unique(ids[ids > 0]))
        drawn = sum(mask * (kind * 1000) for mask, kind in zip(target.masks, target.classes, strict=True))
        assert np.array_equal(drawn, ids // 1000 * 1000)


def test_a_number_that_is_no_object_is_told_with_its_file(tmp_path):
    make_shapes(tmp_path / "s", train=1, val=1, test=1, size=(48, 64))
    file = tmp_path / "s" / "train" / "instances" / "0000.png"
    Image.fromarray(np.full((48, 64), 9001, np.uint16)).save(file)
    cfg = Config.load("center_shapes", f"data.root={tmp_path / 's'}").data
    with pytest.raises(DataError, match=r"0000\.png.*holds 9001; expected 0, or class \* 1000 \+ n of class 1\.\.6"):
        create_dataset(cfg, "train", target="InstancesTarget").load(0)
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(file)
    assert create_dataset(cfg, "train", target="InstancesTarget").load(0).target.masks.shape == (0, 48, 64)


def test_a_dry_run_says_what_the_truth_is_whose_shape_it_gives(shapes, tmp_path):
    shown = call(*words(shapes, tmp_path / "run"), "--dry-run").output
    assert re.search(r"batch: images \(2, 3, 32, 32\), masks of objects \(2, \d+, 32, 32\)", shown)


def test_the_report_shows_single_objects_and_the_evaluation_lists_them(run):
    listed = json.loads((run / "eval.json").read_text())["objects"]
    assert list(listed) == ["best", "worst", "missed", "false"]
    assert {"key", "class", "iou", "score", "near", "area", "box"} == set(listed["missed"][0])
    page = (run / "report.html").read_text()
    assert page.count("<h2>Objects</h2>") == 1
    assert 'alt="Objects missed, the largest"' in page
    for kind, title in (("best", "Objects found best"), ("false", "Objects that are not there")):
        assert (f'alt="{title}' in page) == bool(listed[kind])
        assert bool(listed[kind]) or f"<p>{title}" in page
