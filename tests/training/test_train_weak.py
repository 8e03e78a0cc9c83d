"""Each kind of weak labels trains through the command line; a resumed run ends with the weights of a whole one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import Result
from fakes.folder import write_folder
from fakes.weak import NAMES, write_weak
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.data.formats.classes import write_classes
from segatlas.recipe import Config
from segatlas.training.building import build_parts

SETTINGS = (
    "data.workers=0",
    "data.store=off",
    "model={name: unet, width: 4}",
    "transforms={crop: [32, 32]}",
    "train={steps: 3, batch: 2, lr: 1e-2, device: cpu, threads: 1}",
    "eval={boundary: false, sizes: false}",
    "log={every: 1, tensorboard: false, samples: 1}",
)
LOSSES = {
    "scribbles": "[cross_entropy, {name: gated_crf, after: 0}]",
    "points": "[cross_entropy, {name: gated_crf, stride: 2}]",
    "partial": "[marginal_cross_entropy]",
    "boxes": "[{name: box_regions, stride: 2, dilation: 1}]",
    "labels": "[image_labels]",
}


def train(home: Path, root: Path, *words: object) -> Result:
    recipe = home / "recipe.yaml"
    recipe.write_text("seed: 3\n")
    given = ("train", "--config", recipe, f"data.root={root}", f"run.dir={home / 'run'}", *SETTINGS, *words)
    return CliRunner().invoke(app, [*map(str, given)])


@pytest.mark.parametrize("kind", LOSSES)
def test_each_kind_takes_a_step_through_the_command_line(tmp_path, kind):
    root = write_weak(tmp_path / "data", kind)
    done = train(tmp_path, root, "data.name=weak", f"losses={LOSSES[kind]}", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "loss " in done.output


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.slow) for kind in LOSSES])
def test_each_kind_trains_through_the_command_line(tmp_path, kind):
    root = write_weak(tmp_path / "data", kind)
    done = train(tmp_path, root, "data.name=weak", f"losses={LOSSES[kind]}")
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "run/eval.json").read_text())
    assert 0 <= report["summary"]["miou"] <= 1


@pytest.mark.slow
def test_mixed_sources_train_with_what_each_has_annotated(tmp_path):
    write_weak(tmp_path / "data/a", "partial")
    write_folder(tmp_path / "data/b", counts={"train": 2, "val": 1})
    write_classes(tmp_path / "data/b/classes.json", ("ground", "tree", "road"), ((0, 0, 0), (1, 1, 1), (2, 2, 2)))
    sources = "data.sources=[{name: weak, root: a}, {root: b}]"
    done = train(
        tmp_path, tmp_path / "data", "data.name=mixed", sources, "data.rest=ground", "losses=[marginal_cross_entropy]"
    )
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "run/model/card.json").read_text())["classes"] == [*NAMES, "road"]


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_weights_of_one_that_was_not(tmp_path):
    root = write_weak(tmp_path / "data", "scribbles")
    words = ("data.name=weak", "losses=[cross_entropy, {name: gated_crf, after: 0.4}]", "train.val_every=2")
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = train(tmp_path / "whole", root, *words, "train.steps=4")
    assert whole.exit_code == 0, whole.output
    parts = train(
        tmp_path / "parts", root, *words, "train.steps=4", "train.checkpoint_every=1", "train.time_limit=1e-7"
    )
    assert parts.exit_code == 0, parts.output
    resumed = CliRunner().invoke(app, ["train", "--resume", str(tmp_path / "parts/run"), "train.time_limit=null"])
    assert resumed.exit_code == 0, resumed.output
    states = [
        torch.load(tmp_path / name / "run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "parts")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_labels_that_no_loss_heeds_are_told(tmp_path, caplog):
    labels, partial = write_weak(tmp_path / "labels", "labels"), write_weak(tmp_path / "partial", "partial")
    done = train(tmp_path, labels, "data.name=weak", "losses=[cross_entropy]", "--dry-run")
    assert (done.exit_code, "which only image_labels learns from" in done.output) == (2, True), done.output
    done = train(tmp_path, partial, "data.name=weak", "losses=[cross_entropy]", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "4 of 4 images looked at some classes were not annotated" in caplog.text


def test_a_loss_takes_the_background_of_the_data_and_is_refused_without_one(tmp_path):
    root = write_weak(tmp_path / "data", "boxes")
    words = ("data.name=weak", "losses=[{name: box_regions, stride: 2}]")
    done = train(tmp_path, root, *words, "data.background=none", "--dry-run")
    assert (done.exit_code, "losses.0" in done.output) == (2, True), done.output
    assert "say which class lies outside all boxes" in " ".join(done.output.split())
    cfg = Config.load({}, *words, f"data.root={root}", "data.background=tree", "model={name: unet, width: 4}")
    parts = build_parts(cfg, dry=True)
    assert parts.criterion.terms[0].background == 2


def test_a_weak_loss_reads_whole_masks_too(tmp_path):
    root = write_folder(tmp_path / "data")
    losses = "losses=[marginal_cross_entropy, gated_crf, image_labels]"
    done = train(tmp_path, root, "data.name=folder", losses, "--dry-run")
    assert done.exit_code == 0, done.output
