"""What is claimed of recipes that train as MMSegmentation does; beside the running peer see the tool itself."""

from __future__ import annotations

import json

import pytest

import beside_mmsegmentation as tool
from segatlas.config import recipes
from segatlas.recipe import Config

OWN = (
    *("semask", "sanet", "enet", "espnet", "mask_rcnn", "panoptic_fpn", "panoptic_deeplab"),
    *("eomt", "oneformer"),
)
"""What names of recipes begin with that train as other authors do; those of objects as MMDetection and Detectron2."""

CLAIMING = [name for name in recipes() if ("_ade20k" in name or "_cityscapes" in name) and not name.startswith(OWN)]
STEP = {"ade20k": 16, "cityscapes": 8}
OTHER_STEPS = {
    "stdc": 48,
    "segmenter": 8,
    "semantic_fpn_twins_ade20k": 32,
    "semantic_fpn_poolformer_ade20k": 32,
    "ddrnet": 12,
    "pidnet": 12,
    "bisenetv1": 16,
    "bisenetv2": 16,
    "fast": 32,
    "erfnet": 16,
    "cgnet": 32,
    "mask2former": 16,
    "maskformer": 16,
}
"""Architecture or recipe -> images a step, of networks that are published with others."""
DIFFER = {"batch x accumulated", "seed", "weight decay", "encoder begins", "evaluation", "precision", tool.STATISTICS}
"""Settings that the page says why they differ."""
SIDES = {"resize", "scale"}
DIFFER_TOO = {
    "knet_swin_640_ade20k": {"crop", "resize"},
    "fast_scnn_cityscapes": {"losses"},
    "mask2former_ade20k": SIDES,
    "mask2former_swin_ade20k": SIDES,
    "mask2former_cityscapes": {*SIDES, "crop rule"},
}
"""Recipe -> those that differ in it alone, and the page says why."""
MISSES = [name for name in tool.kept_results() if name.endswith(" float64") and not tool.kept_results()[name]["good"]]
"""Numbers beyond their limit, theirs from theirs as well; the page says why."""
KEPT = tool.kept_results()


def test_the_tables_of_the_page_are_those_of_the_kept_results():
    page = tool.PAGE.read_text(encoding="utf-8")
    for lines in (tool.settings_table(KEPT), tool.numbers_table(KEPT)):
        assert len(lines) > 3
        assert "\n".join(lines) in page


def test_every_recipe_of_these_data_is_beside_its_config_or_the_page_says_why_there_is_none():
    settings = {name.removeprefix("settings ") for name in KEPT if name.startswith("settings ")}
    assert settings == tool.PAIRS.keys()
    assert sorted([*tool.PAIRS, *tool.ALONE]) == sorted(CLAIMING)


@pytest.mark.parametrize("name", tool.PAIRS)
def test_the_kept_settings_are_those_of_the_recipe_and_differ_where_the_page_says_so(name):
    rows = KEPT[f"settings {name}"]["rows"]
    ours = {key: ours for key, (_, ours) in rows.items() if key != tool.STATISTICS}
    assert ours == tool.our_settings(Config.load(name))
    assert {key for key, (theirs, ours) in rows.items() if theirs != ours} <= DIFFER | DIFFER_TOO.get(name, set())
    assert set(KEPT[f"settings {name}"]) >= {"peer", "date"}


def test_what_both_computed_is_there_for_every_part_and_holds():
    for part, recipes_of_part in {"rates": tool.RATES, "losses": tool.LOSSES}.items():
        for recipe in recipes_of_part:
            found = [result for name, result in KEPT.items() if name.startswith(f"{part} {recipe}")]
            assert found, (part, recipe)
            assert all(result["recipe"] == recipe for result in found)
    assert [name for name, result in KEPT.items() if not result.get("good", True)] == MISSES
    assert all(KEPT[name]["itself"] > KEPT[name]["worst"] / 2 for name in MISSES)
    assert all(KEPT[name.replace(" float64", ", step by step")]["good"] for name in MISSES)


def test_two_runs_of_the_tool_keep_each_others_results(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "RESULTS", tmp_path / "kept.json")
    for name in ("rates a", "losses b", "rates a"):
        tool.keep(name, {"good": True})
    assert json.loads((tmp_path / "kept.json").read_text()) == {"losses b": {"good": True}, "rates a": {"good": True}}
    assert [file.name for file in tmp_path.iterdir()] == ["kept.json"]


@pytest.mark.parametrize("name", CLAIMING)
def test_recipes_of_ade20k_and_cityscapes_make_the_choices_of_mmsegmentation(name):
    config = Config.load(name)
    moves, train = config.transforms, config.train
    usual = OTHER_STEPS.get(name.split("_")[0], STEP[config.data.name])
    assert train.batch * train.accumulate == OTHER_STEPS.get(name, usual)
    assert (moves.scale, moves.scale_draw, moves.flip) == ((0.5, 2.0), "uniform", 0.5)
    assert (moves.class_balance, moves.crop_padding) == (1.0 if name == "mask2former_cityscapes" else 0.75, "end")
    assert moves.photometric is not None
    assert (moves.photometric.kind, moves.photometric.probability, moves.photometric.hue) == ("steps", 0.5, 36)
    assert train.schedule.span == "rest"
    assert train.optimizer.decay_norms is (train.optimizer.layer_decay == 1)
    for term in config.losses:
        assert getattr(term, "count_ignored", True) is not getattr(term, "by_count", False)
