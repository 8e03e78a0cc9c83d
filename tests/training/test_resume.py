"""A run that stopped anywhere goes on as if it had not; what would make another run of it is refused by name."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

import resume_campaign
from segatlas.cli.main import app
from segatlas.data.shapes import make_shapes
from segatlas.errors import UsageError
from segatlas.recipe import Config
from segatlas.training import Interrupted, train
from segatlas.training.checkpoints import RunCheckpoints
from segatlas.training.environment import recorded_environment
from segatlas.training.logbook import Logbook, columns
from segatlas.training.module import SegmentationModule
from segatlas.training.resume import other_data

EMA = "train.ema={decay: 0.9}"
DROP_PATH = {"name": "segformer", "encoder": "mit_b0", "decoder_channels": 8, "drop_path": 0.5}
PLATEAU = "train.schedule={name: plateau, patience: 1, factor: 0.5}"


class Killed(BaseException):
    """Stands for SIGKILL: nothing is written any more."""


def kill_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """End the training while the batch of that optimiser step is computed."""
    original = SegmentationModule.training_step

    def training_step(self, batch, batch_index):
        if self.global_step == step:
            raise Killed
        return original(self, batch, batch_index)

    patch.setattr(SegmentationModule, "training_step", training_step)


def stop_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """Press Ctrl-C once while that optimiser step is taken."""
    original = SegmentationModule.training_step

    def training_step(self, batch, batch_index):
        if self.global_step == step:
            next(c for c in self.trainer.callbacks if isinstance(c, RunCheckpoints))._interrupts = 1
        return original(self, batch, batch_index)

    patch.setattr(SegmentationModule, "training_step", training_step)


def time_up_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """Let `train.time_limit` be over when that optimiser step has been taken."""
    original = SegmentationModule.on_train_batch_end

    def on_train_batch_end(self, *args):
        self.trainer.should_stop = self.trainer.should_stop or self.global_step == step
        return original(self, *args)

    patch.setattr(SegmentationModule, "on_train_batch_end", on_train_batch_end)


def step_of(run: Path) -> int:
    return int(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"])


# ---- six of the campaign's cases; `python tools/resume_campaign.py` has more, with true kills
CASES = {
    # name: (end, at step, step of the checkpoint, settings); an epoch has 10 images
    "workers 1, in the second epoch": (kill_at, 8, 7, ["data.workers=1", "train.checkpoint_every=7", "log.every=3"]),
    "workers 2, at an epoch's last step": (stop_at, 8, 9, ["data.workers=2", "train.epochs=3", PLATEAU, EMA]),
    "workers 1, at an epoch's first step": (kill_at, 5, 5, ["data.workers=1", "train.precision=bf16", "log.every=4"]),
    "workers 0, accumulation": (stop_at, 2, 3, ["train.accumulate=2", EMA, "train.clip=1", "log.every=2"]),
    "workers 1, drop path": (kill_at, 3, 3, ["data.workers=1", "train.batch=5", "train.checkpoint_every=1"]),
    "workers 1, killed in the first epoch": (
        kill_at,
        3,
        2,
        ["data.workers=1", "train.checkpoint_every=2", "log.every=5"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_stopped_ends_like_one_that_did_not(recipe, monkeypatch, name):
    end, step, checkpoint, settings = CASES[name]
    monkeypatch.setattr("segatlas.training.course.finish_run", lambda *args: None)
    model = DROP_PATH if "drop path" in name else None
    whole = train(recipe(*settings, "log.samples=0", name="whole", model=model), quiet=True).dir
    cut = whole.parent / "cut"
    with monkeypatch.context() as patch:
        end(patch, step)
        with pytest.raises((Killed, Interrupted)):
            train(recipe(*settings, "log.samples=0", name="cut", model=model), quiet=True)
    assert step_of(cut) == checkpoint
    train(Config.load(cut / "config.yaml"), resume=cut, quiet=True)
    assert resume_campaign.differences(whole, cut) == []


def test_the_comparison_sees_one_changed_number_of_each_kind(half_made, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(half_made, run)
    assert resume_campaign.differences(half_made, run) == []
    last = run / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["state_dict"]["net.classifier.bias"][0] += 1e-6
    content["callbacks"]["RunCheckpoints"]["waited"] += 1
    torch.save(content, last)
    for name, before, after in (("metrics.csv", "\n1,0,0.01,", "\n1,0,0.02,"), ("log.txt", "loss 1", "loss 9")):
        text = (run / name).read_text()
        assert before in text.replace("\r", "")
        (run / name).write_text(text.replace("\r", "").replace(before, after, 1))
    assert set(resume_campaign.differences(half_made, run)) == {
        "last.ckpt.state_dict.net.classifier.bias",
        "last.ckpt.callbacks.RunCheckpoints.waited",
        "metrics.csv",
        "terminal lines",
    }


def test_a_frozen_encoder_stays_frozen_after_a_resume_in_the_middle_of_an_epoch(recipe, monkeypatch):
    monkeypatch.setattr("segatlas.training.course.finish_run", lambda *args: None)
    config = recipe("train.freeze_encoder=true", "train.epochs=1", "train.checkpoint_every=1")
    with monkeypatch.context() as patch:
        kill_at(patch, 3)
        with pytest.raises(Killed):
            train(config, quiet=True)
    run = Path(config.run.dir)
    before = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    train(config, resume=run, quiet=True)
    after = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("net.encoder."))
    assert not torch.equal(before["net.classifier.weight"], after["net.classifier.weight"])


# ---- other settings
@pytest.fixture(scope="module")
def half_made(shapes, tmp_path_factory) -> Path:
    """A run of two epochs of 5 steps that ended at step 7; its data lie beside it."""
    root = tmp_path_factory.mktemp("half")
    shutil.copytree(shapes, root / "shapes")
    (root / "recipe.yaml").write_text("seed: 7\n")
    words = [
        f"run.dir={root / 'run'}", f"run.root={root}", f"data.root={root / 'shapes'}", "data.name=shapes",
        "data.workers=0", "model={name: unet, width: 4}", "transforms={crop: [32, 32]}",
        "train={epochs: 2, batch: 2, lr: 1e-2, device: cpu, threads: 1, checkpoint_every: 7}",
        "eval={boundary: false, sizes: false}", "log={every: 1, tensorboard: false, samples: 0}",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segatlas.training.course.finish_run", lambda *args: None)
        kill_at(patch, 8)
        with pytest.raises(Killed):
            train(Config.load(root / "recipe.yaml", *words), quiet=True)
    return root / "run"


@pytest.fixture
def resume(half_made, tmp_path, monkeypatch):
    """Resume a copy of that run through the command line; the report at the end is left out."""
    monkeypatch.setattr("segatlas.training.course.finish_run", lambda *args: None)

    def go(*words: str, run: Path | None = None) -> tuple[Result, Path]:
        if run is None:
            run = tmp_path / "run"
            shutil.copytree(half_made, run)
        torch.set_num_threads(1)
        result = CliRunner().invoke(app, ["train", "--resume", str(run), *words])
        assert "Traceback" not in result.output
        return result, run

    return go


def said(run: Path) -> str:
    return (run / "log.txt").read_text()


def rates(run: Path) -> dict[int, float]:
    rows = csv.DictReader((run / "metrics.csv").open())
    return {int(row["step"]): float(row["lr"]) for row in rows if row["lr"]}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["train.batch=4"], ["4 images a step (1 process x batch 4 x accumulate 1)", "2 images a step"]),
        (["train.accumulate=2"], ["4 images a step (1 process x batch 2 x accumulate 2)", "allow_other_batch=true"]),
        (["--devices", "2"], ["4 images a step (2 processes x batch 2 x accumulate 1)", "2 images a step"]),
        (["seed=8"], ["seed: 7 -> 8"]),
        (["train.optimizer.name=sgd"], ["train.optimizer.name: adamw -> sgd"]),
        (["train.optimizer.layer_decay=0.5"], ["train.optimizer.layer_decay"]),
        (["train.freeze_encoder=true"], ["train.freeze_encoder"]),
        (["train.ema={decay: 0.9}"], ["train.ema: the checkpoint holds no averaged weights"]),
        (["model.width=8"], ["model.width: 4 -> 8"]),
        (["train.metric=pixel_accuracy"], ["train.metric: miou -> pixel_accuracy"]),
        (["run.dir=elsewhere", "seed=8"], ["run.dir: elsewhere: a resumed run stays in its folder", "seed: 7 -> 8"]),
    ],
    ids=lambda value: " ".join(value) if "=" in value[0] or "--" in value[0] else "",
)
def test_what_would_make_another_run_exits_2_with_both_values_named_and_changes_nothing(
    resume, half_made, words, named
):
    result, run = resume(*words)
    assert result.exit_code == 2, result.output
    for text in (*named, f"model.start_from={run}"):
        assert text in result.stderr
    for name in ("metrics.csv", "log.txt", "config.yaml", "checkpoints/last.ckpt"):
        assert (run / name).read_bytes() == (half_made / name).read_bytes()


def test_another_number_of_train_images_is_refused_with_both_numbers(resume, half_made, tmp_path):
    make_shapes(tmp_path / "more", train=12, val=3, test=2, size=(32, 48), seed=1)
    result, _ = resume(f"data.root={tmp_path / 'more'}")
    assert result.exit_code == 2
    assert "the train split holds 12 images, it held 10" in result.stderr


def test_other_files_of_the_same_number_are_told(resume, tmp_path):
    make_shapes(tmp_path / "other", train=10, val=3, test=2, size=(32, 48), seed=99)
    result, run = resume(f"data.root={tmp_path / 'other'}")
    assert result.exit_code == 0, result.output
    assert "the files of split 'train' are not those that the run began with" in said(run)
    assert "from step 7 on data.root:" in said(run)


def test_an_empty_file_of_metrics_gets_its_head_again(tmp_path):
    (tmp_path / "metrics.csv").write_text("")
    Logbook(SimpleNamespace(metrics=tmp_path / "metrics.csv"), scores=["miou"], resumed=True).rewind(3)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [",".join(columns(["miou"]))]


@pytest.mark.parametrize("content", [b"", b"\xff\0", b"[]", b'{"data": 3}'])
def test_a_damaged_record_of_the_environment_reads_as_none(tmp_path, content):
    (tmp_path / "env.json").write_bytes(content)
    recorded = recorded_environment(tmp_path / "env.json")
    assert recorded in ({}, {"data": 3})
    assert other_data(SimpleNamespace(environment=tmp_path / "env.json"), None) == []


def test_the_same_product_of_other_factors_keeps_steps_and_rates_and_says_so(resume):
    _, plain = resume()
    (plain.parent / "plain").symlink_to(plain.rename(plain.parent / "moved"))
    result, run = resume("train.batch=1", "train.accumulate=2")
    assert result.exit_code == 0, result.output
    assert step_of(run) == step_of(plain.parent / "plain") == 10
    assert rates(run) == rates(plain.parent / "plain")
    assert "2 images a step (1 process x batch 1 x accumulate 2) instead of 2 images a step" in said(run)


def test_an_allowed_other_batch_goes_on_to_the_same_total_of_samples(resume):
    result, run = resume("train.batch=4", "train.allow_other_batch=true")
    assert result.exit_code == 0, result.output
    # 7 steps of 2 and 2 steps of 4: the 20 samples of two epochs of ten images, or as near as whole steps come
    assert step_of(run) == 9
    assert "the run goes on to the same total of 20 samples, which is now step 9 instead of 10" in said(run)
    assert rates(run)[8] == pytest.approx(1e-2 * (1 - 14 / 20) ** 0.9, rel=1e-4)
    assert rates(run)[9] == pytest.approx(1e-2 * (1 - 18 / 20) ** 0.9, rel=1e-4)
    recipe = Config.load(run / "config.yaml")
    assert (recipe.train.batch, recipe.train.allow_other_batch) == (4, False)
    again, _ = resume(run=run)  # what is left is planned with the new batch: nothing to allow any more
    assert again.exit_code == 0, again.output
    assert "nothing left to train" in said(run)


def test_a_longer_run_follows_the_rates_of_its_new_length_and_keeps_it_for_the_next_resume(resume):
    result, run = resume("train.epochs=3")
    assert result.exit_code == 0, result.output
    assert step_of(run) == 15
    assert "the run ends at step 15 instead of 10" in said(run)
    assert rates(run)[7] == pytest.approx(1e-2 * (1 - 6 / 10) ** 0.9, rel=1e-4)
    assert rates(run)[8] == pytest.approx(1e-2 * (1 - 7 / 15) ** 0.9, rel=1e-4)
    assert Config.load(run / "config.yaml").train.epochs == 3
    finished, _ = resume("train.epochs=4", run=run)  # a finished run too can go on
    assert finished.exit_code == 0, finished.output
    assert step_of(run) == 20


@pytest.mark.parametrize("length", ["train.steps=6", "train.epochs=1"])
def test_a_run_cannot_end_before_the_step_where_it_stands_and_stays_as_it_was(resume, length):
    result, run = resume(length)
    key, end = length.partition("=")[0], {"train.steps=6": 6, "train.epochs=1": 5}[length]
    assert result.exit_code == 2
    assert f"{key}" in result.output
    assert f"the run would end at step {end}, but 7 steps are done already: train.steps=7 or more" in result.output
    assert "learning rate follows" not in said(run)
    assert Config.load(run / "config.yaml").train.epochs == 2
    assert step_of(run) == 7


def test_another_learning_rate_and_decay_hold_from_the_resume_on_and_are_told(resume):
    result, run = resume("train.lr=1e-4", "train.optimizer.weight_decay=0.5", "--precision", "bf16")
    assert result.exit_code == 0, result.output
    assert rates(run)[7] == pytest.approx(1e-2 * (1 - 6 / 10) ** 0.9, rel=1e-4)
    assert rates(run)[8] == pytest.approx(1e-4 * (1 - 7 / 10) ** 0.9, rel=1e-4)
    groups = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert {group["weight_decay"] for group in groups} == {0.5, 0.0}
    for text in ("train.lr: 0.01 -> 0.0001", "weight_decay: 0.01 -> 0.5", "train.precision: fp32 -> bf16"):
        assert f"from step 7 on train.{text.removeprefix('train.')}" in said(run) or text in said(run)


def test_a_run_resumed_from_an_older_checkpoint_stands_there_also_for_the_next_resume(resume, monkeypatch):
    _, whole = resume()
    assert step_of(whole) == 10
    kept = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)
    best = whole / "checkpoints" / "best.ckpt"
    assert torch.load(best, weights_only=True)["global_step"] == 5
    with monkeypatch.context() as patch:
        kill_at(patch, 6)
        with pytest.raises(Killed):
            train(Config.load(whole / "config.yaml"), resume=best, quiet=True)
    assert step_of(whole) == 5
    result, _ = resume(run=whole)
    assert result.exit_code == 0, result.output
    again = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(torch.equal(again["state_dict"][name], tensor) for name, tensor in kept["state_dict"].items())
    assert list(rates(whole)) == list(range(1, 11))


def test_a_run_that_replaces_another_shares_neither_rows_nor_checkpoints_with_it(recipe, monkeypatch):
    monkeypatch.setattr("segatlas.training.course.finish_run", lambda *args: None)
    train(recipe("train.epochs=1", "log.samples=0"), quiet=True)
    with monkeypatch.context() as patch:
        kill_at(patch, 3)
        with pytest.raises(Killed):
            train(recipe("train.epochs=1", "log.samples=0", "run.exist_ok=true"), quiet=True)
    config = recipe()
    assert list(rates(Path(config.run.dir))) == [1, 2, 3]
    with pytest.raises(UsageError, match="holds no checkpoint yet"):
        train(config, resume=config.run.dir, quiet=True)


def test_a_run_that_stopped_early_does_not_train_on_when_it_is_resumed(recipe, monkeypatch):
    monkeypatch.setattr("segatlas.training.course.finish_run", lambda *args: None)
    config = recipe("train.lr=1e-12", "train.epochs=9", "train.early_stopping={patience: 2}", "log.samples=0")
    run = train(config, quiet=True).dir
    stopped = step_of(run)
    assert stopped < 45
    train(config, resume=run, quiet=True)
    assert step_of(run) == stopped
    assert f"nothing left to train: the run had stopped early at step {stopped}" in said(run)


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 45), (2, 18)])
def test_a_time_limit_counts_from_each_start_and_ends_after_a_whole_step(recipe, monkeypatch, accumulate, steps):
    monkeypatch.setattr("segatlas.training.course.finish_run", lambda *args: None)
    config = recipe("train.time_limit=1e-7", "train.epochs=9", "log.samples=0", f"train.accumulate={accumulate}")
    run = train(config, quiet=True).dir
    assert step_of(run) == 1
    assert f"the time is up after step 1 of {steps} (train.time_limit=1e-07 minutes)" in said(run)
    assert f"to go on: segatlas train --resume {run}" in said(run)
    train(config, resume=run, quiet=True)
    assert step_of(run) == 2
    assert f"the time is up after step 2 of {steps}" in said(run)


def test_a_finished_run_that_is_resumed_has_the_numbers_of_its_best_validation(recipe):
    config = recipe("train.steps=2", "train.epochs=null", "log.samples=0")
    first = train(config, quiet=True)
    again = train(config, resume=first.dir, quiet=True)
    assert again.metrics == first.metrics
    assert {"miou", "pixel_accuracy", "mean_accuracy"} <= set(again.metrics)
    assert "weights at the start: those of the checkpoint, step 2 of 2" in said(first.dir)


def test_a_time_limit_that_ends_with_the_last_step_is_not_told(recipe, monkeypatch):
    monkeypatch.setattr("segatlas.training.course.finish_run", lambda *args: None)
    run = train(recipe("train.time_limit=1e-7", "train.steps=1", "train.epochs=null", "log.samples=0"), quiet=True).dir
    assert "the time is up" not in said(run)


def test_a_checkpoint_of_an_earlier_version_is_refused_with_what_to_do(resume, half_made, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(half_made, run)
    last = run / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    del content["plan"]
    torch.save(content, last)
    result, _ = resume(run=run)
    assert result.exit_code == 1
    assert (
        "written by an earlier version, which did not keep what an exact resume needs; start a new run" in result.stderr
    )
    assert f"model.start_from={last}" in result.stderr


def test_a_row_of_metrics_that_a_kill_cut_short_is_dropped(resume, half_made, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(half_made, run)
    with (run / "metrics.csv").open("a") as file:
        file.write("1")
    result, _ = resume(run=run)
    assert result.exit_code == 0, result.output
    steps = [row["step"] for row in csv.DictReader((run / "metrics.csv").open()) if row["loss"]]
    assert steps == [str(step) for step in range(1, 11)]
    assert json.loads((run / "env.json").read_text())


def test_the_validation_where_the_time_was_up_does_not_change_how_a_resumed_run_ends(recipe, monkeypatch):
    def no_better(self):
        self.validation_scores = dict.fromkeys(("miou", "pixel_accuracy", "mean_accuracy"), 0.5)

    monkeypatch.setattr(SegmentationModule, "on_validation_epoch_end", no_better)
    settings = ("train.epochs=3", "train.val_epochs=2", "train.batch=5", PLATEAU)
    whole = train(recipe(*settings, name="whole"), quiet=True)
    with monkeypatch.context() as patch:
        time_up_at(patch, 3)  # of two steps an epoch: between two validations
        cut = train(recipe(*settings, name="cut"), quiet=True).dir
    assert step_of(cut) == 3
    train(Config.load(cut / "config.yaml"), resume=cut, quiet=True)
    parts = ("plateau", "callbacks", "optimizer_states", "state_dict")
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole.dir, cut)]
    one, other = ({part: state[part] for part in parts} for state in states)
    assert resume_campaign._unequal(one, other, "last.ckpt") == []


def test_a_run_that_an_earlier_version_began_gets_the_columns_of_today_and_its_files_count_as_the_same(
    resume, half_made, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(half_made, run)
    metrics, environment = run / "metrics.csv", run / "env.json"
    header = metrics.read_text().splitlines()[0]
    assert "images_per_s" in header
    assert '"images":' in environment.read_text()
    metrics.write_text(metrics.read_text().replace("images_per_s", "pictures_per_s", 1))
    environment.write_text(environment.read_text().replace('"images":', '"pictures":'))
    result, _ = resume(run=run)
    assert result.exit_code == 0, result.output
    assert metrics.read_text().splitlines()[0] == header
    assert "are not those that the run began with" not in said(run)
    told = " ".join(result.output.split())
    assert "metrics.csv: pictures_per_s is called images_per_s" in told
    assert "env.json: pictures is called images" in told
