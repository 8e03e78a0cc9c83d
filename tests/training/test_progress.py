"""Points of the loss curve and lines of the log."""

from __future__ import annotations

import csv
import math
import re
from types import SimpleNamespace as Some

import pytest
from fakes.folder import write_folder

from segatlas.drawing.plots import _series, read_metrics
from segatlas.recipe import Config
from segatlas.training.plan import Plan
from segatlas.training.progress import Intervals, ProgressReporter, TimeLeft


@pytest.mark.parametrize(
    ("every", "steps", "point", "line"),
    [
        (None, 1, 1, 1),
        (None, 8, 1, 1),
        (None, 99, 1, 9),
        (None, 100, 10, 10),
        (None, 40_000, 10, 10),
        (3, 8, 3, 3),
        (50, 8, 8, 8),
        (50, 40_000, 50, 50),
    ],
)
def test_a_short_run_has_a_point_each_step_and_a_recipe_s_own_interval_is_kept(every, steps, point, line):
    assert Intervals.of(every, steps) == Intervals(point=point, line=line)


@pytest.fixture
def config(tmp_path):
    """8 steps of a tiny U-Net, nothing said about the log but that no extra files are needed."""
    root = write_folder(tmp_path / "set", counts={"train": 4, "val": 2})
    return Config.load(
        {
            "run": {"dir": str(tmp_path / "run")},
            "model": {"name": "unet", "width": 4},
            "data": {"root": str(root), "workers": 0},
            "transforms": {"crop": [32, 32]},
            "train": {"epochs": 4, "batch": 2, "lr": 1e-2, "device": "cpu", "threads": 1},
            "eval": {"boundary": False, "sizes": False},
            "log": {"tensorboard": False, "samples": 0},
        }
    )


def test_a_run_says_the_score_that_it_watches(config, tmp_path):
    from segatlas.training import train

    watching = config.train.model_copy(update={"metric": "mean_accuracy", "epochs": 1})
    run = train(config.model_copy(update={"train": watching}), quiet=True)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert re.search(r"validation: mIoU .* mean accuracy ", log)
    assert f"best mean accuracy on val: {100 * run.metrics['mean_accuracy']:.2f} %" in log


def test_a_run_of_eight_steps_has_a_loss_curve_of_eight_points(config, tmp_path, capsys):
    from segatlas.training import train

    train(config)
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    steps, losses = _series(rows, lambda name: name == "loss")["loss"]
    assert steps == list(range(1, 9))
    assert len(losses) == 8
    log = (tmp_path / "run" / "log.txt").read_text()
    assert len(re.findall(r"step \d/8  loss", log)) == 8
    assert "best mIoU on val" in log
    spoken = capsys.readouterr().err
    assert f"run folder: {tmp_path / 'run'}\n" in spoken  # on one line, however long
    assert "report:" not in spoken + log  # the command says where it is, once
    assert not any(line.endswith(" ") for line in spoken.splitlines())
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        assert all(float(row["images_per_s"]) > 0 for row in csv.DictReader(file) if row["loss"])


def reporter(rows, time_limit=None, **state):
    made = ProgressReporter(
        Some(add=lambda step, epoch, values, terms: rows.append((step, values["loss"]))),
        scores={},
        intervals=Intervals(point=2, line=4),
        images_per_step=1,
        quiet=True,
        time_limit=time_limit,
    )
    if state:
        made.load_state_dict(state)
    return made


def run(made, first, last):
    plan = Plan(images=8, world=1, batch=1, accumulate=1, samples=8)
    module = Some(plan=plan, learning_rate=0.1, last_terms={}, epoch=0)
    trainer = Some(global_step=first, accumulate_grad_batches=1, fit_loop=Some(_should_accumulate=lambda: False))
    made.on_train_start(trainer, module)
    for step in range(first + 1, last + 1):
        trainer.global_step = step
        made.on_train_batch_end(trainer, module, {"loss": float(step)}, None, 0)


def test_points_and_lines_after_a_resume_cover_the_same_steps_as_without_one(caplog):
    whole, resumed = [], []
    with caplog.at_level("INFO", "segatlas"):
        run(reporter(whole), 0, 8)
        unbroken = [re.search(r"loss [\d.]+", text)[0] for text in caplog.messages]
        caplog.clear()
        first = reporter(resumed)
        run(first, 0, 3)
        run(reporter(resumed, **first.state_dict()), 3, 8)
    assert resumed == whole == [(2, 1.5), (4, 3.5), (6, 5.5), (8, 7.5)]
    assert unbroken == ["loss 2.5000", "loss 6.5000"]
    assert [re.search(r"loss [\d.]+", text)[0] for text in caplog.messages] == unbroken


def test_no_more_time_is_left_than_the_time_limit_gives(caplog):
    with caplog.at_level("INFO", "segatlas"):
        run(reporter([], time_limit=1e-9), 0, 4)
    assert caplog.messages[-1].endswith("  0:00 left")
    for seconds, most, told in ((None, math.inf, "-:--"), (5000.0, 180.0, "3:00"), (9.0, 180.0, "0:09")):
        assert TimeLeft(lambda most=most: most).render(Some(time_remaining=seconds)).plain == told
