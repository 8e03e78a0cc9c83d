"""Runs that cannot be what the recipe says: refused by training and its dry run alike, before a run folder exists."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import torch
from fakes.folder import write_folder

from segatlas.recipe import Config
from segatlas.training import machine
from segatlas.training.module import SegmentationModule
from segatlas.training.run import find_run, link_last, make_run_folder
from segatlas.training.run_lock import RunLock

BOTH = pytest.mark.parametrize("further", [(), ("--dry-run",)], ids=["training", "dry run"])


def said(result) -> str:
    return " ".join(result.output.split())


@pytest.fixture
def refused(train, folder, tmp_path):
    """Train with these words; return what is said, after seeing that nothing was left behind and the exit code is 2."""

    def run(*words: str, root=folder) -> str:
        result = train(root, *words)
        assert result.exit_code == 2, result.output
        assert not (tmp_path / "run").exists()
        assert not (tmp_path / "runs").exists()
        return said(result)

    return run


# ---- devices and precision
@BOTH
@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(refused, monkeypatch, device, further):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    text = refused(f"train.device={device}", *further)
    there_is = {"cuda": "torch sees 0 CUDA devices", "mps": "this machine has no MPS device"}[device]
    assert f'override train.device = "{device}" {there_is} - use auto or cpu' in text


@BOTH
def test_more_processes_than_devices_are_refused_with_both_numbers(refused, monkeypatch, further):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    text = refused("train.device=cuda", "--devices", "3", *further)
    assert "train.devices = 3" in text
    assert "3 processes, each with a device of its own, but this machine has 2 cuda devices" in text


@BOTH
def test_fp16_without_a_gpu_is_refused_also_where_the_device_is_chosen_by_itself(refused, monkeypatch, further):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device in ("auto", "cpu"):
        text = refused(f"train.device={device}", "--precision", "fp16", *further)
        assert "train.precision" in text
        assert "use bf16 or fp32" in text


def test_bf16_on_a_processor_without_its_instructions_is_said(train, folder, monkeypatch):
    monkeypatch.setattr(machine, "processor_has_bf16", lambda: False)
    result = train(folder, "train.precision=bf16", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "train.precision=bf16: cpu has no instructions for it; emulated, slower than fp32" in said(result)


@pytest.mark.parametrize(
    "words", [("--precision", "fp16"), ("--device", "cuda:7"), ("--device", "mps"), ("--device", "x")]
)
@pytest.mark.parametrize("command", ["predict", "eval"])
def test_other_commands_refuse_what_they_cannot_run_on(segatlas, model, folder, tmp_path, monkeypatch, command, words):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    source = [folder / "val" / "images", "--out", tmp_path / "out"] if command == "predict" else ["--data", folder]
    result = segatlas(command, model, *source, *words)
    assert result.exit_code == 2
    assert repr(words[1]) in result.stderr


def test_another_number_of_processes_than_the_launcher_started_is_refused(refused, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert "the launcher has started 4 processes (2 on this machine)" in refused("--devices", "3")


# ---- splits smaller than what a step or a process needs
@BOTH
def test_fewer_training_images_than_processes_are_refused_with_both_numbers(refused, tmp_path, further):
    one = write_folder(tmp_path / "one", counts={"train": 1, "val": 1})
    text = refused("--devices", "2", *further, root=one)
    assert "2 processes for training, but the train split has 1 image; each needs one" in text


@BOTH
def test_one_image_for_train_and_val_together_is_refused(train, tmp_path, further):
    one = write_folder(tmp_path / "one", counts={"train": 1})
    result = train(one, *further)
    assert result.exit_code in (1, 2)
    assert "val" in said(result)
    assert "unexpected" not in result.output
    assert not (tmp_path / "run").exists()


def test_a_split_smaller_than_a_step_trains_in_smaller_steps_and_says_so(train, tmp_path):
    small = write_folder(tmp_path / "small", counts={"train": 3, "val": 1})
    text = (
        "the train split has 3 images, too few for a step of batch 2 x accumulate 4 x processes 1: a step takes 2 x 1"
    )
    for further in (("--dry-run",), ()):
        result = train(small, "train.batch=2", "train.accumulate=4", "log.samples=100", *further)
        assert result.exit_code == 0, result.output
        assert text in said(result)
    assert len(list((tmp_path / "run" / "samples").glob("*.png"))) == 1
    assert (tmp_path / "run" / "report.html").exists()


@BOTH
def test_a_split_that_the_last_evaluation_needs_is_missed_at_the_start(train, folder, tmp_path, further):
    result = train(folder, "eval.split=test", *further)
    assert result.exit_code == 1
    assert "test" in said(result)
    assert not (tmp_path / "run").exists()


# ---- a dry run whose step is not finite
def test_a_dry_run_with_a_loss_that_is_not_finite_fails_and_says_where_to_look(train, folder, tmp_path):
    for number, path in enumerate(sorted(folder.glob("*/images/*"))):
        image = np.full((32, 48, 3), -3.4e38, np.float32)  # the fill value of many maps, which nobody masked
        image[:8] = number
        tifffile.imwrite(path.with_suffix(".tif"), image, photometric="rgb")
        path.unlink()
    result = train(folder, "--dry-run")
    assert result.exit_code == 1
    text = said(result)
    assert "error: the loss became nan in a dry run on: 000, 001" in text
    assert "cross_entropy nan" in text
    assert "model.input" in text


def test_a_gradient_that_is_not_finite_ends_training_and_dry_run_before_it_reaches_the_weights(
    train, folder, tmp_path, monkeypatch
):
    original = SegmentationModule.training_step

    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(context, value):
            return value.clone()

        @staticmethod
        def backward(context, gradient):
            return gradient * float("inf")

    monkeypatch.setattr(SegmentationModule, "training_step", lambda *a: Steep.apply(original(*a)))
    result = train(folder)
    assert result.exit_code == 1
    assert "error: the gradient became" in said(result)
    assert not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()

    from segatlas.criteria.weighted_sum import Criterion

    def forward(self, output, labels):
        loss = output.logits.mean()
        return Steep.apply(loss), {"steep": loss.detach()}

    monkeypatch.setattr(Criterion, "forward", forward)
    result = train(folder, "--dry-run")
    assert result.exit_code == 1
    assert "error: the gradient became" in said(result)


@BOTH
def test_memory_that_does_not_suffice_is_told_with_advice(train, folder, monkeypatch, further):
    from segatlas.criteria.weighted_sum import Criterion

    def forward(self, output, labels):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4608000000 bytes.")

    monkeypatch.setattr(Criterion, "forward", forward)
    result = train(folder, *further)
    assert result.exit_code == 1
    assert "error: out of memory" in result.stderr
    assert "A smaller train.batch or transforms.crop helps" in said(result)


# ---- names that would lead elsewhere
NAMES = {
    "../../../x": "not a path",
    "a/b": "not a path",
    "/tmp/x": "not a path",
    "a\\b": "not a path",
    "..": "not a path",
    ".": "not a path",
    "": "cannot be empty",
    " ": "cannot be empty",
    "a\nb": "no control characters",
    "\0": "no control characters",
    "\x1b[31m": "no control characters",
    "x" * 201: "201 bytes long",
    "é" * 101: "202 bytes long",
}


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_run_name_that_is_no_name_is_refused(refused, name):
    text = refused("run.dir=null", f"run.name={json.dumps(name)}")
    assert "run.name" in text
    assert NAMES[name] in text


@pytest.mark.parametrize("name", ["last", ".hidden", "two words", "ünï-cödé", "x" * 200, "50%", "-001"])
def test_any_other_run_name_is_one_folder_below_the_root(tmp_path, name):
    lock = RunLock()
    make_run_folder(Config.load({}, f"run.root={tmp_path}", f"run.name={json.dumps(name)}"), lock)
    lock.release()
    assert {path.name for path in (tmp_path / "semantic").iterdir()} == {f"{name}-001"}


@pytest.mark.parametrize(
    "key",
    ["run.dir", "run.root", "data.root", "data.store", "data.lists.val", "model.start_from", "model.encoder_weights"],
)
def test_a_path_is_never_empty_and_holds_no_control_characters(refused, key):
    for value in ("", "a\0b", "a\x1b[31mb", "~nobody-of-that-name/x"):
        text = refused(f"{key}={json.dumps(value)}")
        assert f"{key} = " in text


def test_a_tilde_in_the_place_of_a_run_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    lock = RunLock()
    config = Config.load({}, "run.dir=~/run", "run.root=~/runs")
    folder = make_run_folder(config, lock)
    lock.release()
    link_last(folder, config)
    folder.config.write_text("seed: 1\n")
    assert folder.root == tmp_path / "home" / "run"
    assert find_run("last", root="~/runs").root == find_run("~/run").root == folder.root.resolve()


# ---- a folder in which another training is at work
@pytest.mark.parametrize("words", [(), ("run.exist_ok=true",)], ids=["new", "replacing"])
def test_a_run_folder_in_which_another_training_is_at_work_is_refused(train, folder, tmp_path, words):
    run = tmp_path / "run"
    run.mkdir()
    other = RunLock()
    other.take(run)
    result = train(folder, *words)
    assert result.exit_code == 2
    assert f"{run} is in use: process " in result.stderr
    assert [path.name for path in run.iterdir()] == ["run.lock"]
    other.release()
    assert train(folder, *words).exit_code == 0
    assert not (run / "run.lock").exists()


def test_a_run_in_training_is_not_resumed_but_evaluated(segatlas, train, folder, tmp_path):
    assert train(folder, "log.samples=0").exit_code == 0
    run, other = tmp_path / "run", RunLock()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    other.take(run)
    for place in (run, run / "checkpoints" / "last.ckpt"):
        result = segatlas("train", "--resume", place, "train.epochs=2")
        assert result.exit_code == 2
        assert f"{run} is in use: process " in result.stderr
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "run.lock"} == before
    assert segatlas("eval", run).exit_code == 0
    other.release()
    assert segatlas("train", "--resume", run, "train.epochs=2").exit_code == 0
