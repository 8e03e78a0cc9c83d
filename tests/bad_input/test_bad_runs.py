"""Runs that are stopped, killed, or meet a full or closed disk: exit code, message, and what is left behind."""

from __future__ import annotations

import errno
import os
import signal
import tempfile
from pathlib import Path

import pytest
import torch
from fakes.bad_files import noise
from PIL import Image

from segatlas import files
from segatlas.structures import Inputs
from segatlas.training.module import SegmentationModule

TWO_EPOCHS = "train.epochs=2"
FIRST_EPOCH = 2
"""Optimiser steps of an epoch of the `train` fixture."""


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def last_step(run: Path) -> int:
    return int(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"])


def leftovers(root: Path) -> list[str]:
    """Return temporary files and folders."""
    return sorted(path.name for path in root.rglob(".*"))


def leftover_of(place: Path, kind: str = "tmp") -> Path:
    """Return the name under which a process that is gone has left what it was writing to `place`."""
    return place.with_name(f".{place.name}.{files._machine()}-{2**22 + 1}-0123abcd.{kind}")


def at_step(monkeypatch, step, action):
    """Do something to the batch of that optimiser step, once."""
    original, done = SegmentationModule.training_step, []

    def training_step(self, batch, batch_index):
        if self.global_step == step and not done:
            done.append(step)
            batch = action(batch) or batch
        return original(self, batch, batch_index)

    monkeypatch.setattr(SegmentationModule, "training_step", training_step)


def press_ctrl_c(times):
    def action(batch):
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)

    return action


# ---- Ctrl-C
def test_ctrl_c_once_writes_a_checkpoint_exits_130_and_says_how_to_go_on(
    segatlas, train, folder, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 2, press_ctrl_c(1))
        result = train(folder, TWO_EPOCHS)
    assert result.exit_code == 130
    assert f"segatlas train --resume {run}" in result.stderr
    assert last_step(run) == 3
    result = segatlas("train", "--resume", run)
    assert result.exit_code == 0, result.output
    assert last_step(run) == 4
    assert leftovers(run) == []


def test_ctrl_c_twice_stops_at_once_exits_130_and_keeps_the_last_checkpoint(train, folder, tmp_path, monkeypatch):
    at_step(monkeypatch, 3, press_ctrl_c(2))
    result = train(folder, TWO_EPOCHS)
    assert result.exit_code == 130
    assert "stopped at once" in result.stderr
    assert last_step(tmp_path / "run") == FIRST_EPOCH
    assert leftovers(tmp_path / "run") == []


@pytest.mark.parametrize("command", ["predict", "eval"])
def test_ctrl_c_in_other_commands_exits_130(segatlas, model, folder, tmp_path, monkeypatch, command):
    from segatlas.inference.runner import Runner

    def interrupted(self, *args):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Runner, "output", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
    words = [folder / "val" / "images"] if command == "predict" else ["--data", folder]
    result = segatlas(command, model, *words, "--out", tmp_path / "out")
    signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


# ---- NaN, killed loader, unexpected faults
def test_a_loss_of_nan_ends_with_exit_1_the_files_named_and_the_good_checkpoint_kept(
    segatlas, train, folder, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda batch: batch._replace(inputs=Inputs(batch.inputs.image * float("nan"))))
        result = train(folder, TWO_EPOCHS)
    assert result.exit_code == 1
    text = " ".join(result.stderr.split())
    assert "error: the loss became nan at step 3 on: 00" in text
    assert "The last good checkpoint is kept" in text
    run = tmp_path / "run"
    assert last_step(run) == FIRST_EPOCH
    tensors = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    assert segatlas("predict", run, folder / "val" / "images", "--out", tmp_path / "out").exit_code == 0


def test_a_loader_process_killed_by_the_system_ends_with_exit_1_and_advice(train, folder, tmp_path, monkeypatch):
    from segatlas.data.stream import SampleStream

    original, parent = SampleStream.__getitem__, os.getpid()

    def load(self, address):
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, address)

    monkeypatch.setattr(SampleStream, "__getitem__", load)
    result = train(folder, "data.workers=1")
    assert result.exit_code == 1
    assert "a loader process was killed by the system" in result.stderr
    assert "data.workers=0" in result.stderr
    assert leftovers(tmp_path / "run") == []


def test_a_defect_in_a_loader_process_shows_its_trace_with_debug_only(train, folder, monkeypatch):
    from segatlas.data.stream import SampleStream

    def load(self, address):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(SampleStream, "__getitem__", load)
    result = train(folder, "data.workers=1")  # the fixture sees to it that no trace is shown
    assert result.exit_code == 1
    assert "unexpected error: ZeroDivisionError" in result.stderr
    assert "rerun with --debug" in result.stderr


# ---- what a kill leaves
def test_the_next_start_removes_what_a_kill_left_and_goes_on(segatlas, train, folder, tmp_path):
    run = tmp_path / "run"
    assert train(folder).exit_code == 0
    for place in (run / "model", run / "checkpoints" / "last.ckpt", run / "eval.json"):
        left = leftover_of(place)
        if place.is_dir():
            left.mkdir()
            left /= "model.safetensors"
        left.write_bytes(b"half")
    assert len(leftovers(run)) == 3
    result = segatlas("train", "--resume", run, TWO_EPOCHS)
    assert result.exit_code == 0, result.output
    assert last_step(run) == 2 * FIRST_EPOCH
    assert leftovers(run) == []


def test_a_model_that_a_kill_left_between_two_renames_is_there_again_after_the_next_start(
    segatlas, train, folder, tmp_path
):
    run = tmp_path / "run"
    assert train(folder).exit_code == 0
    (run / "model").rename(leftover_of(run / "model", "old"))
    assert segatlas("train", "--resume", run).exit_code == 0
    assert sorted(path.name for path in (run / "model").iterdir()) == ["card.json", "model.safetensors"]
    assert leftovers(run) == []


def test_no_byte_of_a_run_passes_through_the_systems_temporary_folder(train, folder, monkeypatch):
    def none(*args, **kwargs):
        raise AssertionError("a temporary file of the system")

    for name in ("mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryFile"):
        monkeypatch.setattr(tempfile, name, none)
    result = train(folder)
    assert result.exit_code == 0, result.output


# ---- full disk
def test_a_full_disk_under_a_checkpoint_keeps_the_earlier_one(train, folder, tmp_path, monkeypatch):
    original = torch.save

    def save(content, path):
        if content["global_step"] > FIRST_EPOCH:
            Path(path).write_bytes(b"half")
            raise full_disk()
        original(content, path)

    monkeypatch.setattr(torch, "save", save)
    result = train(folder, TWO_EPOCHS)
    run = tmp_path / "run"
    assert result.exit_code == 1
    assert "No space left on device; the previous checkpoint" in result.stderr
    assert "is untouched. Free some space, then use --resume" in result.stderr
    assert last_step(run) == FIRST_EPOCH
    assert leftovers(run) == []


@pytest.mark.parametrize("place", ["weights", "card"])
def test_a_full_disk_under_the_model_folder_keeps_the_earlier_model_and_a_resume_mends_it(
    segatlas, train, folder, tmp_path, monkeypatch, place
):
    from segatlas.checkpoint import model_folder
    from segatlas.training.module import SegmentationModule

    run, calls = tmp_path / "run", []
    name = {"weights": "save_file", "card": "sha256"}[place]
    original = getattr(model_folder, name)

    def fails_the_second_time(*args, **kwargs):
        calls.append(name)
        if len(calls) == 2:
            raise full_disk()
        return original(*args, **kwargs)

    scores = iter([0.1, 0.2, 0.2])  # each validation is a new best; the second is repeated after the resume

    def on_validation_epoch_end(self):
        value = next(scores)
        self.validation_scores = {"miou": value, "pixel_accuracy": value, "mean_accuracy": value}

    monkeypatch.setattr(SegmentationModule, "on_validation_epoch_end", on_validation_epoch_end)
    with monkeypatch.context() as patch:
        patch.setattr(model_folder, name, fails_the_second_time)
        if place == "card":  # reading a model checks the hash too: only writing is under test here
            patch.setattr("segatlas.training.course.finish_run", lambda *args: None)
        result = train(folder, TWO_EPOCHS)
    assert result.exit_code == 1
    assert f"{run / 'model'}: cannot be written: No space left on device" in result.stderr
    assert leftovers(run) == []
    assert '"miou": 0.1' in (run / "model" / "card.json").read_text()
    assert segatlas("predict", run, folder / "val" / "images", "--out", tmp_path / "out").exit_code == 0
    result = segatlas("train", "--resume", run)
    assert result.exit_code == 0, result.output
    assert '"miou": 0.2' in (run / "model" / "card.json").read_text()
    assert last_step(run) == 4


def test_a_full_disk_where_links_are_copies_leaves_no_half_checkpoint(train, folder, tmp_path, monkeypatch):
    import shutil

    def no_link(*args, **kwargs):
        raise PermissionError(errno.EPERM, "no hard links here")

    def half_copy(source, target):
        Path(target).write_bytes(b"half")
        raise full_disk()

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(shutil, "copyfile", half_copy)
    result = train(folder)
    assert result.exit_code == 1
    assert f"cannot write {tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}" in result.stderr
    assert leftovers(tmp_path / "run") == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")
def test_a_full_disk_under_the_log_files_is_one_message(train, folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("log.txt", "metrics.csv"):
        (run / name).symlink_to("/dev/full")
    result = train(folder)
    assert result.exit_code == 1
    assert f"error: cannot write {run / 'metrics.csv'}: No space left on device" in result.stderr
    assert "Logging error" not in result.stderr


@pytest.mark.parametrize("save", ["mask", "overlay", "json"])
def test_a_full_disk_under_predictions_names_the_file_and_leaves_only_whole_ones(
    segatlas, model, tmp_path, monkeypatch, save
):
    images, out = tmp_path / "in", tmp_path / "out"
    images.mkdir()
    for name in "abc":
        Image.fromarray(noise()).save(images / f"{name}.png")
    replaced, original = [], os.replace

    def replace(source, target):
        replaced.append(target)
        if len(replaced) == 2:
            raise full_disk()
        original(source, target)

    monkeypatch.setattr(os, "replace", replace)
    result = segatlas("predict", model, images, "--out", out, "--save", save)
    assert result.exit_code == 1
    assert f"error: {replaced[1]}: cannot be written: No space left on device" in result.stderr
    assert [path.name for path in out.iterdir()] == [replaced[0].name]


def test_a_full_disk_under_an_evaluation_leaves_no_half_report(segatlas, model, folder, tmp_path, monkeypatch):
    def replace(source, target):
        raise full_disk()

    monkeypatch.setattr(os, "replace", replace)
    result = segatlas("eval", model, "--data", folder, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "eval.json: cannot be written: No space left on device" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


# ---- folders that cannot be written
@pytest.mark.parametrize("place", ["below a file", "in /proc"])
def test_an_output_folder_that_cannot_be_written_is_named_before_any_work(
    segatlas, train, model, folder, tmp_path, place
):
    (tmp_path / "file").write_text("keep me")
    bad = tmp_path / "file" / "out" if place == "below a file" else Path("/proc/segatlas/out")
    result = segatlas("predict", model, folder / "val" / "images", "--out", bad)
    assert result.exit_code == 2
    assert f"cannot write to the folder {bad}" in result.stderr
    result = segatlas("eval", model, "--data", folder, "--out", bad)
    assert result.exit_code == 2
    assert f"cannot write to the folder {bad}" in result.stderr
    result = train(folder, f"run.dir={bad}")
    assert result.exit_code == 1
    assert "cannot write the run folder" in result.stderr
    assert str(bad if place == "below a file" else bad.parent) in result.stderr
    assert (tmp_path / "file").read_text() == "keep me"


def test_a_run_folder_in_use_is_not_overwritten(train, folder, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("seed: 1\n")
    result = train(folder)
    assert result.exit_code == 2
    assert f"{run} already holds a run" in result.stderr
    assert (run / "config.yaml").read_text() == "seed: 1\n"
    assert list(run.iterdir()) == [run / "config.yaml"]


# ---- resuming what cannot be resumed
def test_resuming_a_damaged_or_foreign_checkpoint_names_it_and_keeps_it(segatlas, train, folder, tmp_path):
    assert train(folder).exit_code == 0
    run = tmp_path / "run"
    last = run / "checkpoints" / "last.ckpt"
    half = last.read_bytes()[:5000]
    last.write_bytes(half)
    result = segatlas("train", "--resume", run)
    assert result.exit_code == 1
    assert f"{last}: truncated torch file" in result.stderr
    assert last.read_bytes() == half
    torch.save({"state_dict": {}}, last)
    result = segatlas("train", "--resume", run)
    assert result.exit_code == 1
    assert f"{last}: not a checkpoint written by segatlas train" in result.stderr


def test_resuming_the_checkpoint_of_another_network_names_both(segatlas, train, folder, tmp_path):
    assert train(folder).exit_code == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    content["state_dict"].pop("net.classifier.weight")
    torch.save(content, last)
    result = segatlas("train", "--resume", tmp_path / "run", "train.epochs=2")
    assert result.exit_code == 1
    assert f"{last}: does not fit the unet of the recipe" in result.stderr
    assert "1 missing in the file: classifier.weight" in result.stderr


def test_data_that_were_moved_are_told_with_their_full_path_and_the_key_that_helps(
    segatlas, train, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert train(folder.name).exit_code == 0
    (tmp_path / "elsewhere").mkdir()
    moved = folder.rename(tmp_path / "elsewhere" / "data")
    told = f"data.root is missing: no folder {folder}; if the data were moved, add their place: data.root=FOLDER"
    for words in (("eval", "run", "--device", "cpu"), ("train", "--resume", "run", "train.epochs=2")):
        lost = segatlas(*words)
        assert lost.exit_code == 1
        assert told in lost.stderr
        found = segatlas(*words, f"data.root={moved}")
        assert found.exit_code == 0, found.output


def test_a_new_training_says_nothing_of_data_that_were_moved(train, tmp_path):
    lost = train(tmp_path / "nowhere")
    assert lost.exit_code == 1
    assert "data.root is missing" in lost.stderr
    assert "moved" not in lost.stderr


def test_a_run_that_is_mistyped_is_told_with_those_that_are_called_nearly_so(segatlas, folder, tmp_path, monkeypatch):
    (tmp_path / "runs/semantic/last").mkdir(parents=True)
    (tmp_path / "runs/semantic/last/config.yaml").write_text("seed: 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGATLAS_OFFLINE", "1")
    photos = str(folder / "val/images")
    for words, near in (
        (("predict", "runs/semantic/lst", photos, "--out", "out"), "called nearly so here: runs/semantic/last"),
        (("eval", "runs/semantic/lst"), "called nearly so here: runs/semantic/last"),
        (("eval", "run/semantic/last"), "called nearly so here: runs/semantic/last"),
        (("predict", "runs/semantc", photos, "--out", "out"), "called nearly so here: runs/semantic"),
        (("train", "--resume", "runs/semantic/lst"), "a run called nearly so: runs/semantic/last"),
    ):
        result = segatlas(*words)
        assert result.exit_code in (1, 2)
        assert near in result.stderr, result.stderr
