"""The table that leads from a training script around MMSegmentation to our command: each is tried."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.small_recipes import narrow, words, write_sets

from segatlas.recipe import Config
from segatlas.training.dry import dry_run
from training_scripts import MARKS, PAGE, SCRIPTS, page


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_sets(tmp_path_factory.mktemp("sets"))


def test_the_page_holds_the_table_as_it_would_be_written_now():
    inside = PAGE.read_text(encoding="utf-8").split(MARKS[0])[1].split(MARKS[1])[0]
    assert inside.strip() == page()


def test_there_is_one_row_for_each_of_27_scripts():
    assert len({script.name for script in SCRIPTS}) == len(SCRIPTS) == 27


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script.words], ids=lambda script: script.name)
def test_a_command_is_read_with_the_place_that_its_script_writes_to(script, tmp_path: Path):
    config = Config.load(*script.words.split(), f"data.root={tmp_path}", f"run.dir={tmp_path / 'work_dirs'}")
    assert config.run.dir == str(tmp_path / "work_dirs")
    assert config.data.name in script.config


@pytest.mark.slow
@pytest.mark.parametrize("script", [script for script in SCRIPTS if script.words], ids=lambda script: script.name)
def test_a_command_takes_a_dry_step_on_a_small_set(script, roots: dict[str, Path]):
    name, *further = script.words.split()
    small = words(name, roots, *narrow(name), "model.encoder_weights=null", *further)
    assert dry_run(Config.load(*small)).loss > 0
