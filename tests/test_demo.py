"""`make demo` runs commands that are there: for each task a shipped recipe of that task, and files that it writes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segatlas.recipe import Config
from segatlas.tasks import TASKS

ROOT = Path(__file__).resolve().parent.parent


def lines(task: str) -> list[list[str]]:
    """Return the words of each command of the demo, which is not run."""
    command = ["make", "-n", "demo", f"TASK={task}", "VENV=/nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()]


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
@pytest.mark.parametrize("task", TASKS)
def test_the_demo_of_each_task_trains_a_recipe_of_it_and_saves_what_it_gives(task):
    commands = {words[1]: words[2:] for words in lines(task) if words and words[0].endswith("/segatlas")}
    assert list(commands) == ["data", "train", "eval", "predict"]
    config = Config.load(*commands["train"])
    assert config.task == task
    assert f"data.root={commands['data'][1]}" in commands["train"]
    saved = commands["predict"][commands["predict"].index("--save") + 1].split(",")
    assert set(saved) <= set(TASKS[task].writers)
    assert "overlay" in saved


@needs_make
def test_the_demo_of_an_unknown_task_is_refused_with_those_that_there_are():
    with pytest.raises(subprocess.CalledProcessError) as caught:
        lines("boxes")
    assert "TASK=boxes: expected semantic, instance or panoptic" in caught.value.stderr


@needs_make
@pytest.mark.slow
def test_the_demo_prints_a_page_that_ends_with_a_report_and_an_image(tmp_path):
    short = "DEMO_semantic=unet_shapes_minute train.steps=6 train.val_every=6"
    venv = Path(sys.executable).parent.parent
    made = [f"STAMP={tmp_path}/stamp", f"VENV={venv}", f"DEMO={tmp_path}/demo", "IMAGES_semantic=--train 24", short]
    (tmp_path / "stamp").touch()
    done = subprocess.run(
        ["make", "demo", *made], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    printed = done.stdout.splitlines()
    assert len(printed) <= 30
    report, image = (Path(line.split()[-1]) for line in printed[-2:])
    assert report.name == "report.html"
    assert report.stat().st_size > 0
    assert image.parent == report.parent / "samples"
    assert image.is_file()
