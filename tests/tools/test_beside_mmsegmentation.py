"""What is claimed of recipes that train as MMSegmentation does; beside the running peer see the tool itself."""

from __future__ import annotations

import json

import pytest

import beside_mmsegmentation as tool
from segatlas.config import recipes
from segatlas.recipe import Config

CLAIMING = [name for name in recipes() if "_ade20k" in name or "_cityscapes" in name]
STEP = {"ade20k": 16, "cityscapes": 8}
OTHER_STEPS = {"stdc": 48, "segmenter": 8, "semantic_fpn_twins_ade20k": 32, "semantic_fpn_poolformer_ade20k": 32}
"""Architecture or recipe -> images a step, of networks that are published with others."""


def test_the_tables_of_the_page_are_those_of_the_kept_results():
    kept = json.loads(tool.RESULTS.read_text(encoding="utf-8"))
    page = tool.PAGE.read_text(encoding="utf-8")
    for lines in (tool.settings_table(kept), tool.numbers_table(kept)):
        assert len(lines) > 3
        assert "\n".join(lines) in page
    assert {f"settings {recipe}" for recipe in tool.PAIRS} <= kept.keys()


@pytest.mark.parametrize("name", CLAIMING)
def test_recipes_of_ade20k_and_cityscapes_make_the_choices_of_mmsegmentation(name):
    config = Config.load(name)
    moves, train = config.transforms, config.train
    usual = OTHER_STEPS.get(name.split("_")[0], STEP[config.data.name])
    assert train.batch * train.accumulate == OTHER_STEPS.get(name, usual)
    assert (moves.scale, moves.scale_draw, moves.flip) == ((0.5, 2.0), "uniform", 0.5)
    assert (moves.class_balance, moves.crop_padding) == (0.75, "end")
    assert moves.photometric is not None
    assert (moves.photometric.kind, moves.photometric.probability, moves.photometric.hue) == ("steps", 0.5, 36)
    assert train.schedule.span == "rest"
    assert train.optimizer.decay_norms is (train.optimizer.layer_decay == 1)
    for term in config.losses:
        assert getattr(term, "count_ignored", True) is True
