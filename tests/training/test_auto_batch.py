"""`train.batch=auto`: the number that is found, where it is kept, and that finding it changes nothing else."""

from __future__ import annotations

import pytest
import torch

from segatlas.config.schema import SemiConfig
from segatlas.errors import ConfigError, TrainingError
from segatlas.recipe import Config
from segatlas.training import auto_batch, dry_run, train
from segatlas.training.auto_batch import climb, settled_batch, sizes_for
from segatlas.training.building import build_parts
from segatlas.training.machine import choose_machine


@pytest.mark.parametrize(
    ("allowed", "found", "tried"),
    [
        (100, 8, [2, 3, 4, 6, 8]),  # all of them
        (55, 4, [2, 3, 4]),  # 6 would take 70: it is not even tried
        (29, 0, [2]),
        (40, 3, [2, 3]),
    ],
)
def test_the_largest_size_that_fits_is_found_without_trying_what_cannot(allowed, found, tried):
    asked = []

    def trial(size: int) -> int:
        asked.append(size)
        return 10 + 10 * size if size < 8 else 100

    assert climb(trial, (2, 3, 4, 6, 8), allowed) == found
    assert asked == tried


def test_a_size_that_does_not_fit_at_all_ends_the_search():
    assert climb(lambda size: None if size > 3 else size, (2, 3, 4), 100) == 3


def test_an_epoch_keeps_its_steps_as_far_as_two_images_allow_it():
    assert [sizes_for(images)[-1] for images in (0, 1, 2, 7, 8, 12, 100, 1000)] == [1, 1, 2, 2, 2, 3, 24, 64]


def test_the_number_stands_in_the_run_is_kept_by_a_resume_and_trains_as_if_it_had_been_given(recipe, monkeypatch):
    auto, given = (
        train(recipe("train.steps=1", f"train.batch={batch}", "log.samples=0", name=name), quiet=True)
        for batch, name in (("auto", "auto"), (2, "given"))
    )
    assert Config.load(auto.dir / "config.yaml").train.batch == 2
    assert "train.batch=auto: 2 images a step" in (auto.dir / "log.txt").read_text()
    weights = [torch.load(run.dir / "checkpoints" / "last.ckpt")["state_dict"] for run in (auto, given)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    again = Config.load(auto.dir / "config.yaml", "train.steps=2", "train.batch=auto")
    monkeypatch.setattr(auto_batch, "_probe", lambda *_: pytest.fail("a run that goes on was tried anew"))
    for place in ({"resume": auto.dir}, {"resume": auto.dir / "checkpoints/last.ckpt"}, {"given": str(auto.dir)}):
        assert settled_batch(again, choose_machine(again), **place)[0].train.batch == 2


def test_little_memory_makes_it_smaller_and_a_dry_run_says_why(recipe, monkeypatch):
    config = recipe("train.batch=auto")
    shown = dry_run(config)
    assert shown.batch_shape[0] == 2
    assert "leave 4 steps an epoch" in shown.notices[0]
    monkeypatch.setattr(auto_batch, "free_memory", lambda device: 1000)
    found, told = settled_batch(config, choose_machine(config))
    assert found.train.batch == 1
    assert "half of the 0.0 GiB" in told[0]


def test_semi_supervised_steps_are_not_guessed(recipe):
    config = recipe("train.batch=auto")
    semi = SemiConfig()
    with pytest.raises(ConfigError, match=r"train\.batch"):
        settled_batch(config.model_copy(update={"semi": semi}), choose_machine(config))


def test_a_device_is_asked_by_steps_until_its_memory_does_not_suffice(recipe, monkeypatch):
    config = recipe("train.batch=2", "train.ema=null")
    parts, steps = build_parts(config), []

    def step(config, parts, batch, where):
        steps.append(len(batch.keys))
        if len(batch.keys) > most:
            raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(auto_batch, "one_step", step)
    monkeypatch.setattr(auto_batch, "_clean", lambda device: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: steps[-1])
    most = 3
    found, why = auto_batch._by_trial(config, parts, torch.device("cpu"), (2, 3, 4, 6), 1000)
    assert (found, steps) == (3, [2, 3, 4])
    assert "by trial" in why
    most = 1
    assert auto_batch._by_trial(config, parts, torch.device("cpu"), (2, 3), 1000)[0] == 1
    most = 0
    with pytest.raises(TrainingError, match="not even a step of one image"):
        auto_batch._by_trial(config, parts, torch.device("cpu"), (2, 3), 1000)
