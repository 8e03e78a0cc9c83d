"""What earlier months wrote is read with the same numbers, and the proof of that sees what is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import frozen
import frozen_recipes
import shape_proof
from frozen import Outcome, compare_tensors, compare_trees

NEWEST = frozen.months()[-1]


@pytest.mark.parametrize("part", frozen.CHECKS)
@pytest.mark.parametrize("month", frozen.months(), ids=lambda month: month.name)
def test_what_an_earlier_month_left_gives_the_same_numbers(month, part, tmp_path):
    outcomes = frozen.check(part, month, tmp_path)
    assert outcomes
    assert [outcome for outcome in outcomes if outcome.state not in ("equal", "close")] == []


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A copy of the newest folder, to plant a fault in."""
    return Path(shutil.copytree(NEWEST, tmp_path / "changed"))


def states(month: Path, part: str, place: Path) -> list[tuple[str, str]]:
    """What differs; on another kind of machine than the folder's, numbers that round otherwise are close."""
    outcomes = frozen.check(part, month, place)
    return [(outcome.name, outcome.detail) for outcome in outcomes if outcome.state not in ("equal", "close")]


def rewrite(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_one_changed_score_of_a_model_is_seen_and_named(changed, tmp_path, monkeypatch):
    monkeypatch.setattr(frozen, "MODELS", {"windows": "windows", "finished": "finished"})
    file = changed / "expected" / "results.safetensors"
    results = load_file(file)
    results["windows|scores"][0, 3, 2, 1] += 0.01
    save_file(results, file)
    [(name, detail)] = states(changed, "models", tmp_path)
    assert name == "windows"
    assert detail.startswith("1 of 4 tensors, scores by ")


def test_a_card_a_recipe_or_a_network_that_differs_is_named_with_its_key(changed, tmp_path):
    file = changed / "expected" / "recipes.json"
    trees = {path: tree for path, tree in json.loads(file.read_text()).items() if "every_key" in path}
    file.write_text(json.dumps(trees))
    rewrite(file, '"val_share": 0.3', '"val_share": 0.4')
    [(name, detail)] = states(changed, "recipes", tmp_path)
    assert name == "recipes/every_key_a.yaml"
    assert detail.endswith("data.val_fraction: 0.4 -> 0.3")
    rewrite(changed / "expected" / "cards.json", '"smp.json":', '"smp.json":1')
    assert [name for name, _ in states(changed, "cards", tmp_path)] == ["network of smp.json"]


def test_a_file_that_cannot_be_read_any_more_is_a_difference(changed, tmp_path):
    rewrite(changed / "cards" / "trained.json", '"classes"', '"klasses"')
    [(name, detail)] = states(changed, "cards", tmp_path)
    assert (name, "WeightsError" in detail) == ("changed cards", True)


@pytest.mark.parametrize("part", frozen.CHECKS)
def test_a_part_of_which_nothing_is_left_fails(part, changed, tmp_path):
    for file in changed.rglob("*"):
        if file.is_file() and file.name not in ("README.md", "machine.json"):
            file.write_text("{}", encoding="utf-8")
    results = {part: list(shape_proof.guarded(lambda place: frozen.check(part, changed, place), part, tmp_path))}
    assert shape_proof.failed(results)


def test_numbers_may_round_otherwise_only_on_another_kind_of_machine():
    one, other = {"x": torch.tensor([1.0, 2.0])}, {"x": torch.tensor([1.0, 2.000001])}
    assert [compare_tensors("n", other, one, limit).state for limit in (None, 1e-6, 1e-7)] == [
        "differs",
        "close",
        "differs",
    ]
    assert compare_tensors("n", {}, {}, None).state == "differs"
    assert compare_tensors("n", {"y": one["x"]}, one, 1.0).state == "differs"
    assert compare_tensors("n", {"x": one["x"].double()}, one, 1.0).state == "differs"
    assert compare_tensors("n", {"x": torch.tensor([float("nan"), 2.0])}, one, 1.0).state == "differs"


def test_a_renamed_key_is_compared_under_its_new_name_and_a_new_one_must_be_declared(monkeypatch):
    old, new = {"data": {"val_share": 0.2, "lists": [{"a": 1}]}}, {"data": {"val_fraction": 0.2, "lists": [{"b": 1}]}}
    assert compare_trees("n", "recipe", new, old).state == "differs"
    table = {"data.val_share": "data.val_fraction", "data.lists.*.a": "data.lists.*.b"}
    monkeypatch.setitem(frozen.RENAMED, "recipe", table)
    assert compare_trees("n", "recipe", new, old).state == "equal"
    assert compare_trees("n", "recipe", {**new, "extra": 1}, old).state == "differs"
    monkeypatch.setitem(frozen.ADDED, "recipe", ("extra",))
    assert compare_trees("n", "recipe", {**new, "extra": 1}, old).state == "equal"
    assert compare_trees("n", "recipe", {}, {}).state == "differs"


def test_a_lost_key_or_another_value_is_never_close():
    assert compare_trees("n", "card", {"a": 1.0}, {"a": 1.0, "b": 2.0}, 10.0).state == "differs"
    assert compare_trees("n", "card", {"a": "x"}, {"a": "y"}, 10.0).state == "differs"
    assert compare_trees("n", "card", {"a": True}, {"a": 1}).state == "differs"
    assert compare_trees("n", "card", {"a": []}, {"a": {}}).state == "differs"


EQUAL, DIFFERS = Outcome(name="n", state="equal"), Outcome(name="n", state="differs", detail="by 1")
SKIPPED = Outcome(name="n", state="not run", detail="no checkpoint")
WITHOUT = Outcome(name="all keys", state="not run", detail=shape_proof.NO_REFERENCES)


@pytest.mark.parametrize(
    ("results", "fails"),
    [
        ({"a": [EQUAL], "b": [EQUAL]}, False),
        ({"a": [EQUAL, SKIPPED], "parity": [WITHOUT]}, False),
        ({"a": [EQUAL], "b": [EQUAL, DIFFERS]}, True),
        ({"a": [EQUAL], "b": [SKIPPED]}, True),
        ({"a": [EQUAL], "b": []}, True),
        ({}, True),
    ],
)
def test_the_proof_fails_on_a_difference_and_on_a_part_that_compared_nothing(results, fails):
    assert shape_proof.failed(results) is fails
    assert ("differs: n: by 1" in shape_proof.table(results)) == (DIFFERS in results.get("b", []))


def test_a_folder_of_references_without_any_is_no_proof(tmp_path):
    empty, without = (list(shape_proof.guarded(lambda _, f=f: shape_proof.parity_keys(f), "parity", tmp_path))
                      for f in (tmp_path, None))  # fmt: skip
    assert (shape_proof.failed({"parity": empty}), shape_proof.failed({"parity": without})) == (True, False)
    (tmp_path / "fcn").mkdir()
    assert [outcome.state for outcome in shape_proof.parity_keys(tmp_path)] == ["not run"]


def test_the_frozen_recipes_of_this_month_state_every_key_there_was():
    stated = frozen_recipes.stated_keys(NEWEST.glob("recipes/every_key_*.yaml"))
    assert {"data.val_share", "losses.tversky.alpha", "train.schedule.milestones", "run.exist_ok"} <= stated
    assert len(stated) > 100
    assert json.loads((NEWEST / "expected" / "recipes.json").read_text())
