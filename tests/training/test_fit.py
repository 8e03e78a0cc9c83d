"""Whole trainings on a generated dataset: what a run leaves behind, how it resumes, how it stops."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.folder import write_folder

from segatlas.checkpoint.reading import read_state_dict
from segatlas.data.formats.masks import read_mask, write_mask
from segatlas.data.shapes import make_shapes
from segatlas.errors import ConfigError, DataError, SegAtlasError, TrainingError
from segatlas.evaluation import evaluate
from segatlas.recipe import Config
from segatlas.structures import Inputs
from segatlas.training import Interrupted, building, dry_run, train
from segatlas.training.module import SegmentationModule

STRESS = ("train.accumulate=2", "train.ema={decay: 0.9}", "train.clip=1.0", "train.schedule.name=cosine")


def checkpoint(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same_state(one: dict, other: dict) -> None:
    assert one["global_step"] == other["global_step"]
    for part in ("state_dict", "current_model_state"):
        if part not in one:
            continue
        assert one[part].keys() == other[part].keys()
        for name, tensor in one[part].items():
            assert torch.equal(tensor, other[part][name]), f"{part} {name} differs"
    moments = [state["optimizer_states"][0]["state"] for state in (one, other)]
    for index, values in moments[0].items():
        assert torch.equal(values["exp_avg"], moments[1][index]["exp_avg"])


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int, times: int = 1) -> None:
    """Press Ctrl-C while the batch of that optimiser step is computed."""
    original, pressed = SegmentationModule.training_step, []

    def training_step(self, batch, batch_index):
        if self.global_step == step and len(pressed) < times:
            pressed.append(step)
            signal.raise_signal(signal.SIGINT)
        return original(self, batch, batch_index)

    monkeypatch.setattr(SegmentationModule, "training_step", training_step)


def test_a_run_leaves_everything_the_design_names(recipe):
    run = train(recipe("train.epochs=1", "train.schedule.warmup=100"), quiet=True)
    log = (run.dir / "log.txt").read_text()
    for line in (
        "network: unet, ",
        "weights at the start: random",
        "input: mean [0.485, 0.456, 0.406]",
        "warm-up: 1 step, ",
    ):
        assert line in log
    for name in (
        "config.yaml",
        "env.json",
        "metrics.csv",
        "log.txt",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "model/model.safetensors",
        "model/card.json",
        "eval.json",
        "plots/curves.png",
        "plots/confusion.png",
        "report.html",
    ):
        assert (run.dir / name).stat().st_size > 0, name
    assert list((run.dir / "samples").glob("step_*.png"))
    assert Config.load(run.dir / "config.yaml").train.epochs == 1
    assert 0 <= run.metrics["miou"] <= 1
    assert json.loads((run.dir / "eval.json").read_text())["definitions"]["miou"]
    rows = list(csv.DictReader((run.dir / "metrics.csv").open()))
    assert [row["step"] for row in rows if row["loss"]] == list("12345")
    assert sum(bool(row["val_miou"]) for row in rows) == 1
    assert not list(run.dir.rglob("*.tmp"))


def test_the_same_recipe_trains_to_the_same_weights(recipe):
    runs = [train(recipe(*STRESS, name=name), quiet=True).dir for name in ("one", "two")]
    assert_same_state(checkpoint(runs[0]), checkpoint(runs[1]))


def test_workers_do_not_change_the_run(recipe):
    runs = [train(recipe("train.epochs=1", f"data.workers={n}", name=f"w{n}"), quiet=True).dir for n in (0, 2)]
    assert_same_state(checkpoint(runs[0]), checkpoint(runs[1]))


def test_resuming_from_a_validation_inside_an_epoch_ends_the_same(recipe, monkeypatch):
    settings = ("train.steps=8", "train.epochs=null", "train.val_every=3")
    whole = train(recipe(*settings, name="whole"), quiet=True)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 6)
        with pytest.raises(Interrupted):
            train(recipe(*settings, name="cut"), quiet=True)
    cut = whole.dir.parent / "cut"
    resumed = train(Config.load(cut / "config.yaml"), resume=cut / "checkpoints" / "best.ckpt", quiet=True)
    assert_same_state(checkpoint(whole.dir), checkpoint(resumed.dir))


def test_ctrl_c_twice_stops_at_once_and_keeps_the_last_checkpoint(recipe, monkeypatch):
    before = signal.getsignal(signal.SIGINT)  # a shell's background job ignores it
    original = SegmentationModule.training_step

    def training_step(self, batch, batch_index):
        if self.global_step == 6:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return original(self, batch, batch_index)

    monkeypatch.setattr(SegmentationModule, "training_step", training_step)
    with pytest.raises(Interrupted) as stop:
        train(recipe(), quiet=True)
    assert not stop.value.saved
    assert checkpoint(stop.value.run)["global_step"] == 5
    assert signal.getsignal(signal.SIGINT) is before


def out_of_memory(*_):
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


def bad_image(*_):
    raise DataError("is no image", Path("a.png"))


@pytest.mark.parametrize(
    ("place", "fault", "error"),
    [
        ("module.SegmentationModule.training_step", out_of_memory, TrainingError),
        ("module.SegmentationModule.training_step", lambda *_: signal.raise_signal(signal.SIGINT), Interrupted),
        ("fit._write_head", lambda *_: signal.raise_signal(signal.SIGINT), Interrupted),
        ("fit._trainer", bad_image, DataError),
    ],
)
def test_a_run_that_ends_before_its_first_step_leaves_no_folder(recipe, monkeypatch, tmp_path, place, fault, error):
    def failing(*given, **_):
        fault(*given)

    monkeypatch.setattr(f"segatlas.training.{place}", failing)
    with pytest.raises(error):
        train(recipe("run.dir=null", "log.tensorboard=true"), quiet=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("hook", "settings", "stands_at"),
    [
        ("training_step", ("train.accumulate=2", "train.checkpoint_every=1"), 2),  # within a step
        ("training_step", ("train.val_every=2",), 2),  # before a validation
        ("validation_step", ("train.val_every=2",), 2),  # in one
    ],
)
def test_a_terminated_run_stops_behind_its_step_with_a_checkpoint_as_with_ctrl_c(
    recipe, monkeypatch, hook, settings, stands_at
):
    original, asked = getattr(SegmentationModule, hook), []

    def terminated(self, *args):
        if self.global_step == stands_at - (hook == "training_step") and not asked:
            asked.append(signal.raise_signal(signal.SIGTERM))
        return original(self, *args)

    monkeypatch.setattr(SegmentationModule, hook, terminated)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as stop:
        train(recipe(*settings), quiet=True)
    assert stop.value.saved
    assert checkpoint(stop.value.run)["global_step"] == stands_at
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_evaluation_after_a_training_is_interrupted_at_once(recipe, monkeypatch):
    def evaluating(*_, **__):
        assert signal.getsignal(signal.SIGTERM) is before

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("segatlas.training.course.finish_run", evaluating)
    train(recipe("train.epochs=1"), quiet=True)


def test_a_loss_that_is_not_finite_stops_with_the_files_named(recipe, monkeypatch):
    original = SegmentationModule.training_step

    def training_step(self, batch, batch_index):
        if self.global_step == 7:
            batch = batch._replace(inputs=Inputs(batch.inputs.image * float("nan")))
        return original(self, batch, batch_index)

    monkeypatch.setattr(SegmentationModule, "training_step", training_step)
    config = recipe()
    with pytest.raises(TrainingError, match=r"nan at step 7 on: .+, .+\. The last good checkpoint is kept"):
        train(config, quiet=True)
    assert checkpoint(Path(config.run.dir))["global_step"] == 5


@pytest.mark.parametrize(("step", "said"), [(0, "Look at model.input"), (2, "Try a lower train.lr")])
def test_where_no_checkpoint_is_kept_none_is_said_to_be(recipe, monkeypatch, step, said):
    original = SegmentationModule.training_step

    def training_step(self, batch, batch_index):
        if self.global_step == step:
            batch = batch._replace(inputs=Inputs(batch.inputs.image * float("nan")))
        return original(self, batch, batch_index)

    monkeypatch.setattr(SegmentationModule, "training_step", training_step)
    with pytest.raises(TrainingError, match=rf"nan at step {step} on: .+\. {said}") as error:
        train(recipe(), quiet=True)
    assert "kept" not in str(error.value)
    assert ("train.lr" in str(error.value)) == (step > 0)


def test_a_full_disk_keeps_the_previous_checkpoint_and_leaves_nothing_half_written(recipe, monkeypatch):
    original = torch.save

    def save(content, path):
        if content["global_step"] > 5:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(content, path)

    monkeypatch.setattr(torch, "save", save)
    config = recipe()
    with pytest.raises(TrainingError, match=r"No space left on device; the previous checkpoint .* is untouched"):
        train(config, quiet=True)
    run = Path(config.run.dir)
    assert checkpoint(run)["global_step"] == 5
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_killed_loader_process_is_explained(recipe, monkeypatch):
    from segatlas.data.stream import SampleStream

    original, parent = SampleStream.__getitem__, os.getpid()

    def load(self, address):
        if address[0] == 2 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, address)

    monkeypatch.setattr(SampleStream, "__getitem__", load)
    config = recipe("data.workers=1", "train.epochs=3")
    with pytest.raises(TrainingError, match="a loader process was killed by the system"):
        train(config, quiet=True)
    assert checkpoint(Path(config.run.dir))["global_step"] in (5, 10)  # it reads ahead of the third epoch


def test_what_is_said_of_the_data_is_said_once_in_each_run(recipe, tmp_path):
    root = write_folder(tmp_path / "data")
    shutil.rmtree(root / "val")
    (root / "train" / "images" / "000.png").unlink()
    for name in ("one", "two"):
        run = train(recipe("data.name=folder", f"data.root={root}", "train.steps=1", name=name), quiet=True)
        text = (run.dir / "log.txt").read_text()
        assert text.count("no val part in") == 1
        assert text.count("have no image and are left out") == 1
        assert "best mIoU on val" in text


def test_resuming_a_finished_run_says_that_nothing_is_left(recipe):
    run = train(recipe("train.epochs=1"), quiet=True)
    before = checkpoint(run.dir)
    train(Config.load(run.dir / "config.yaml"), resume=run.dir, quiet=True)
    assert "nothing left to train" in (run.dir / "log.txt").read_text()
    assert_same_state(before, checkpoint(run.dir))


def test_early_stopping_ends_a_run_that_does_not_improve(recipe):
    run = train(recipe("train.lr=1e-12", "train.epochs=9", "train.early_stopping={patience: 2}"), quiet=True)
    assert checkpoint(run.dir)["global_step"] < 45
    assert "stopping early" in (run.dir / "log.txt").read_text()


def test_a_frozen_encoder_keeps_weights_and_statistics(recipe):
    first = train(recipe("train.epochs=1", name="first"), quiet=True)
    start = f"model.start_from={first.dir}"
    run = train(recipe(start, "train.freeze_encoder=true", "train.epochs=1", name="frozen"), quiet=True)
    one, other = checkpoint(first.dir)["state_dict"], checkpoint(run.dir)["state_dict"]
    for name, tensor in one.items():
        if name.startswith("net.encoder."):
            assert torch.equal(tensor, other[name]), name
    assert not torch.equal(one["net.classifier.weight"], other["net.classifier.weight"])


def test_a_run_that_only_gets_worse_keeps_the_weights_it_began_with(recipe, tmp_path):
    first = train(recipe("train.epochs=2", name="first"), quiet=True)
    start = (f"model.start_from={first.dir}", "train.epochs=1", "train.lr=1", "train.schedule.name=constant")
    run = train(recipe(*start, "train.ema={decay: 0.5}", name="worse"), quiet=True)
    log = (run.dir / "log.txt").read_text()
    assert (
        f"no validation was better than the start, miou {100 * run.metrics['miou']:.2f} %: the run keeps it unchanged"
        in log
    )
    one, other = (read_state_dict(each.dir / "model" / "model.safetensors").tensors for each in (first, run))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert json.loads((run.dir / "model/card.json").read_text())["metric"]["step"] == 0
    assert checkpoint(run.dir)["global_step"] == 5  # the last step, from which it could go on


def test_a_start_that_was_judged_changes_no_weight_and_a_resumed_run_remembers_it(recipe, monkeypatch):
    first = train(recipe("train.epochs=1", "train.lr=1e-5", name="first"), quiet=True)
    words = (f"model.start_from={first.dir}", "train.val_every=2", "train.epochs=1", *STRESS)
    whole = train(recipe(*words, name="whole"), quiet=True)
    assert "start  validation: miou" in (whole.dir / "log.txt").read_text()
    interrupt_at(monkeypatch, 1)
    with pytest.raises(Interrupted) as stop:
        train(recipe(*words, name="parts"), quiet=True)
    resumed = train(Config.load(stop.value.run / "config.yaml"), resume=stop.value.run, quiet=True)
    assert_same_state(checkpoint(whole.dir), checkpoint(resumed.dir))
    states = [checkpoint(run.dir)["callbacks"]["RunCheckpoints"] for run in (whole, resumed)]
    assert states[0]["start"] == states[1]["start"] is not None
    took = building._start_from
    monkeypatch.setattr(building, "_start_from", lambda *a, **k: replace(took(*a, **k), loaded=()))
    again = train(recipe(*words, name="unjudged"), quiet=True)
    assert_same_state(checkpoint(whole.dir), checkpoint(again.dir))


def test_gradient_checkpointing_changes_memory_not_weights(recipe):
    # dropout stays outside the encoder, so recomputing its stages draws nothing
    runs = [
        train(recipe("train.epochs=1", f"train.gradient_checkpointing={on}", name=f"gc{on}"), quiet=True).dir
        for on in ("false", "true")
    ]
    one, other = (checkpoint(run)["state_dict"] for run in runs)
    for name, tensor in one.items():
        if "running_" not in name and "num_batches" not in name:
            torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=1e-5)


def test_fine_tuning_takes_over_weights_and_preprocessing_and_names_the_new_classifier(recipe, tmp_path):
    own = "model.input={mean: [0.1, 0.2, 0.3], std: [1, 1, 1]}"
    first = train(recipe("train.epochs=1", own, name="first"), quiet=True)
    make_shapes(tmp_path / "two", train=4, val=2, test=1, size=(32, 48), seed=5)
    for mask in Path(tmp_path / "two").rglob("masks/*.png"):
        write_mask(mask, np.minimum(read_mask(mask), 1).astype(np.uint8))
    (tmp_path / "two" / "classes.json").unlink()
    run = train(
        recipe(f"data.root={tmp_path / 'two'}", "data.name=folder", f"model.start_from={first.dir}", name="second"),
        quiet=True,
    )
    card = json.loads((run.dir / "model" / "card.json").read_text())
    assert card["preprocessing"]["mean"] == [0.1, 0.2, 0.3]
    assert "new, because the class count differs: classifier.weight" in (run.dir / "log.txt").read_text()


def test_a_class_count_that_differs_from_the_data_is_a_config_error_and_nothing_is_written(recipe):
    config = recipe("model.num_classes=99")
    with pytest.raises(ConfigError, match=r"model\.num_classes"):
        train(config, quiet=True)
    assert not Path(config.run.dir).exists()


def test_a_loss_on_a_missing_auxiliary_head_is_a_config_error_and_a_present_one_is_trained(recipe):
    loss = "losses=[cross_entropy, {name: cross_entropy, on: aux.fcn, weight: 0.4}]"
    config = recipe(loss)
    with pytest.raises(ConfigError, match=r'losses\.1\.on = "aux\.fcn"'):
        train(config, quiet=True)
    assert not Path(config.run.dir).exists()
    assert dry_run(recipe(loss, "model.aux=true")).aux_shapes.keys() == {"fcn"}


def test_a_dry_run_reports_shapes_and_writes_nothing(recipe):
    config = recipe()
    facts = dry_run(config)
    assert facts.batch_shape == (2, 3, 32, 32)
    assert facts.output_shape[:2] == (2, len(facts.classes))
    assert facts.loss > 0
    assert facts.memory_mb > 0
    assert not Path(config.run.dir).exists()


def test_bf16_training_runs_and_stays_finite(recipe):
    run = train(recipe("train.precision=bf16", "train.epochs=1"), quiet=True)
    assert all(torch.isfinite(t).all() for t in checkpoint(run.dir)["state_dict"].values())


def test_validation_in_bf16_scores_the_averaged_weights_that_are_saved_by_their_fast_form(recipe):
    run = train(recipe("train.precision=bf16", "train.ema={decay: 0.9}", "train.epochs=2"), quiet=True)
    assert "fast form" not in (run.dir / "log.txt").read_text()
    saved = evaluate(run.best, Config.load(run.dir / "config.yaml"), precision="bf16", device="cpu", progress=False)
    card = json.loads((run.best / "card.json").read_text())
    assert card["metric"]["miou"] == pytest.approx(saved.miou, abs=1e-9)


def test_an_unwritable_run_folder_is_a_clear_error(recipe, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegAtlasError, match="cannot write the run folder"):
        train(recipe(f"run.dir={tmp_path / 'file' / 'run'}"), quiet=True)


def test_the_decoded_store_does_not_change_the_run(recipe, tmp_path):
    store = tmp_path / "store"
    settings = {"off": "data.store=off", "cold": f"data.store={store}", "warm": f"data.store={store}"}
    runs = [train(recipe("train.epochs=1", place, name=name), quiet=True).dir for name, place in settings.items()]
    assert len(list(store.glob("entries/*/*"))) == 2 * (10 + 3)
    for other in runs[1:]:
        assert_same_state(checkpoint(runs[0]), checkpoint(other))


def test_a_dry_run_keeps_nothing_in_the_decoded_store(recipe, tmp_path):
    dry_run(recipe(f"data.store={tmp_path / 'store'}"))
    assert not (tmp_path / "store").exists()
