"""`make demo` runs commands that are there: for each task a shipped recipe of that task, and files that it writes."""

from __future__ import annotations

import shutil
import subprocess
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
