"""The gallery: every family has a command that can be given, or a word on why it is not shown."""

from __future__ import annotations

import shlex

import pytest

from family_gallery import ELSEWHERE, TILES, command, main_score, tiles
from segatlas.models import ARCHITECTURES
from segatlas.recipe import Config


def test_every_family_is_shown_or_named():
    assert sorted([*TILES, *ELSEWHERE]) == sorted(ARCHITECTURES)


@pytest.mark.parametrize("family", TILES)
def test_each_command_trains_the_family_for_as_many_steps(family):
    config = Config.load(*shlex.split(command(family, 70, 2, "data", "run"))[2:])
    assert ARCHITECTURES[family].name in (config.model.name, config.model.name.partition("_r")[0])
    assert config.data.name == "shapes"
    assert config.train.steps == config.train.val_every == 70
    assert config.train.threads == 2
    assert config.train.schedule.name != "constant"


def test_the_page_has_an_image_and_a_command_of_each_family_that_was_made():
    fact = {"steps": 100, "parameters": 2_000_000, "core_minutes": 1.02, "score": main_score({"miou": 0.5, "pq": None})}
    facts = {name: {**fact, "command": f"segatlas train {name}"} for name in ("fpn", "unet")}
    lines = tiles(facts)
    assert lines[2].startswith("| ![The image](gallery/the_image.webp)")
    assert lines[3] == (
        "| ![U-Net](gallery/unet.webp)<br>**U-Net**, 2.0 M, 100 steps, 1.0 core-minutes, mIoU 50 % "
        "| ![FPN](gallery/fpn.webp)<br>**FPN**, 2.0 M, 100 steps, 1.0 core-minutes, mIoU 50 % |  |"
    )
    assert lines[-3:] == ["segatlas train unet", "segatlas train fpn", "```"]
    assert sum(line.startswith("- ") for line in lines) == len(ELSEWHERE)
