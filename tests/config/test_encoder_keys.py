"""The flat and the nested spelling of an encoder, in plain fields and in every layer of a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from segatlas.config.encoder_keys import encoder_name, nested_fields
from segatlas.errors import ConfigError
from segatlas.recipe import Config

NESTED = {"encoder": {"name": "resnet50", "output_stride": 8, "multi_grid": [1, 2, 4]}}
SPELLINGS = {
    "flat": {"encoder": "resnet50", "output_stride": 8, "encoder_options": {"multi_grid": [1, 2, 4]}},
    "nested": NESTED,
    "both": {**NESTED, "output_stride": 8, "encoder_options": {"multi_grid": [1, 2, 4]}},
    "mixed": {"encoder": {"name": "resnet50", "output_stride": 8}, "encoder_options": {"multi_grid": [1, 2, 4]}},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_all_spellings_become_the_nested_one_and_other_fields_stay(spelling: str) -> None:
    fields, problems = nested_fields({**SPELLINGS[spelling], "rates": (1, 2)})
    assert (fields, problems) == ({**NESTED, "rates": (1, 2)}, [])
    assert encoder_name(SPELLINGS[spelling]) == "resnet50"


def test_tuples_stay_tuples_and_contradict_no_list_of_the_same() -> None:
    given = {**NESTED, "encoder_options": {"multi_grid": (1, 2, 4)}}
    assert nested_fields(given) == (NESTED, [])
    assert nested_fields({"encoder_options": {"multi_grid": (1, 2)}})[0] == {"encoder": {"multi_grid": (1, 2)}}


def test_null_is_kept_where_it_says_something() -> None:
    assert nested_fields({"encoder": None}) == ({"encoder": None}, [])
    assert nested_fields({"output_stride": None}) == ({"encoder": {"output_stride": None}}, [])
    assert nested_fields({"encoder_options": None, "drop_path": None}) == ({}, [])
    assert nested_fields({"encoder": "mit_b0", "drop_path": 0.2})[0] == {
        "encoder": {"name": "mit_b0", "drop_path": 0.2}
    }
    assert encoder_name({"encoder": None}) == encoder_name({}) == ""


def test_what_contradicts_itself_is_named_by_the_key_that_was_written() -> None:
    given = {"encoder": {"name": "a", "output_stride": 8, "x": 1}, "output_stride": 16, "encoder_options": {"x": 2}}
    fields, problems = nested_fields(given)
    assert [(p.key, p.got) for p in problems] == [("output_stride", "16"), ("encoder_options.x", "2")]
    assert problems[0].message == "contradicts encoder.output_stride = 8: leave one of them out"
    assert fields == {"encoder": given["encoder"]}


def group(tmp_path: Path, below: str, *words: str) -> object:
    file = tmp_path / "recipe.yaml"
    file.write_text(below)
    return Config.load(file, *words, check_model=None).model.architecture_fields().get("encoder")


@pytest.mark.parametrize(
    "below", ["encoder: {name: resnet50, output_stride: 16}", "encoder: resnet50\n  output_stride: 16"]
)
def test_a_word_of_either_spelling_lies_over_a_file_of_either(tmp_path: Path, below: str) -> None:
    below = f"model:\n  {below}\n"
    assert group(tmp_path, below) == {"name": "resnet50", "output_stride": 16}
    for word in ("model.encoder=resnet34", "model.encoder.name=resnet34", "model.encoder={name: resnet34}"):
        assert group(tmp_path, below, word) == {"name": "resnet34", "output_stride": 16}
    for word in ("model.output_stride=8", "model.encoder.output_stride=8", "model={output_stride: 8}"):
        assert group(tmp_path, below, word) == {"name": "resnet50", "output_stride": 8}
    for word in ("model.encoder_options={multi_grid: [1, 2]}", "model.encoder.multi_grid=[1, 2]"):
        assert group(tmp_path, below, word) == {"name": "resnet50", "output_stride": 16, "multi_grid": [1, 2]}
    assert group(tmp_path, below, "model.encoder=null") is None


def test_the_flat_spelling_of_a_recipe_lies_over_the_nested_one_of_its_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("model:\n  encoder: {name: resnet50, output_stride: 8, multi_grid: [1, 2]}\n")
    recipe = "base: base.yaml\nmodel:\n  encoder: resnet34\n  output_stride: 16\n"
    assert group(tmp_path, recipe) == {"name": "resnet34", "output_stride": 16, "multi_grid": [1, 2]}


def test_contradictions_within_a_layer_are_told_with_both_lines(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("model:\n  encoder:\n    name: resnet50\n    output_stride: 8\n  output_stride: 16\n")
    with pytest.raises(ConfigError) as told:
        Config.load(file, "model.encoder=resnet18", "model.encoder.name=resnet34")
    with pytest.raises(ConfigError) as words:
        Config.load({}, "model.encoder=resnet18", "model.output_stride=8", "model.encoder.output_stride=16")
    [problem] = told.value.problems
    assert (problem.key, problem.line, problem.file) == ("model.output_stride", 5, str(file))
    assert problem.message == "contradicts encoder.output_stride = 8 (line 4): leave one of them out"
    assert [(p.key, p.file) for p in words.value.problems] == [("model.output_stride", "override")]
