from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from segatlas.config import recipes, to_yaml
from segatlas.config.schema import DataConfig
from segatlas.data.datasets.folder import FolderOptions
from segatlas.errors import ConfigError, Problem
from segatlas.recipe import Config, json_schema


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(source: object, *overrides: str, **options: object) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        Config.load(source, *overrides, **options)  # type: ignore[arg-type]
    return caught.value.problems


def only(source: object, *overrides: str) -> Problem:
    (problem,) = problems_of(source, *overrides)
    return problem


def test_an_empty_recipe_is_the_defaults() -> None:
    cfg = Config.load({})
    assert cfg.data.own_fields() == FolderOptions().model_dump()
    assert cfg.model_copy(update={"data": DataConfig()}) == Config().settled()


def test_fifty_epochs_are_the_default_where_neither_length_is_set() -> None:
    assert Config.load({}).train.epochs == 50
    assert Config.load({}, "train.steps=10").train.epochs is None


def test_keys_of_a_file_and_overrides_are_applied_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "my.yaml", "seed: 1\ntrain: {lr: 1e-3, batch: 4}\n")
    cfg = Config.load(path, "train.batch=2", "train.lr=5e-4", "train.lr=2e-4")
    assert (cfg.seed, cfg.train.batch, cfg.train.lr) == (1, 2, 2e-4)
    assert cfg.run.name == "my"


def test_a_named_run_keeps_its_name(tmp_path: Path) -> None:
    assert Config.load(write(tmp_path / "my.yaml", "run: {name: other}\n")).run.name == "other"


@pytest.mark.parametrize(
    ("word", "path", "value"),
    [
        ("transforms.crop=[256, 320]", "transforms.crop", (256, 320)),
        ("transforms.crop=null", "transforms.crop", None),
        ("train.ema={}", "train.ema.decay", 0.999),
        ("train.ema.decay=0.5", "train.ema.decay", 0.5),
        ("losses.0.weight=2", "losses.0.weight", 2.0),
        ("losses=[dice]", "losses.0.name", "dice"),
        ("run.name='001'", "run.name", "001"),
        ("run.name=001", "run.name", "001"),
        ("data.root=a=b", "data.root", "a=b"),
        ("data.label_map.7=1", "data.label_map", {7: 1}),
        ("model.anything=[1, x]", "model.anything", [1, "x"]),
    ],
)
def test_an_override_sets_one_value(word: str, path: str, value: object) -> None:
    found: object = Config.load({"losses": ["focal", "dice"], "transforms": {"crop": [8, 8]}}, word, check_model=None)
    for key in path.split("."):
        found = found[int(key)] if isinstance(found, tuple) else getattr(found, key)
    assert found == value


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("train..lr=3", "expected KEY=VALUE"),
        ("train.lr=", "train.lr=null"),
        ("train.lr=[1", "not valid YAML"),
        ("train.lr=# note", "not a value"),
        ("losses.3.weight=2", "the list has 1 items"),
        ("losses.x=2", "the list has 1 items"),
        ("seed.x=2", "'x' cannot be set inside 0"),
        ("base=unet_shapes", "in a file only"),
    ],
)
def test_a_faulty_override_says_what_is_wrong(word: str, message: str) -> None:
    problem = only({"losses": ["dice"], "seed": 0}, word)
    assert message in problem.message
    assert (problem.file, problem.line) == ("override", None)


def test_losses_may_be_names_alone() -> None:
    cfg = Config.load({"losses": ["cross_entropy", {"name": "dice", "smooth": 0.5}]})
    assert [(term.name, term.weight) for term in cfg.losses] == [("cross_entropy", 1.0), ("dice", 1.0)]


def test_all_problems_are_told_at_once_with_line_key_value_and_nearest_name(tmp_path: Path) -> None:
    path = write(
        tmp_path / "bad.yaml",
        "model:\n  name: unet\n  num_classes: 1\n"
        "data:\n  nmae: folder\n"
        "losses:\n  - name: cross_entropi\n  - name: dice\n    smoth: 1\n  - fokal\n"
        "train:\n  epochs: 3\n  steps: 5\n  lr: true\n"
        "lr: 3\n",
    )
    found = [(p.line, p.key, p.got, p.message) for p in problems_of(path, "train.epoch=3", "eval.split=vall")]
    unknown = "unknown key - did you mean"
    assert found == [
        (3, "model.num_classes", "1", "expected a whole number, at least 2"),
        (5, "data.nmae", '"folder"', f"{unknown} 'name'?"),
        (7, "losses.0.name", '"cross_entropi"', "unknown name - did you mean 'cross_entropy'?"),
        (9, "losses.1.smoth", "1", f"{unknown} 'smooth'?"),
        (10, "losses.2.name", '"fokal"', "unknown name - did you mean 'focal'?"),
        (12, "train.epochs", "3", "both epochs and steps are set - set one of them to null"),
        (14, "train.lr", "true", "expected a number, above 0, at most 100"),
        (15, "lr", "3", "unknown key here - did you mean 'train.lr'?"),
        (None, "train.epoch", "3", f"{unknown} 'epochs'?"),
        (None, "eval.split", '"vall"', "expected one of: train, val, test - did you mean 'val'?"),
    ]


def test_the_message_is_aligned_and_counts_the_problems(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.yaml", "sed: 1\ntrain: {lr: fast}\n")
    with pytest.raises(ConfigError) as caught:
        Config.load(path, "seed=-1")
    assert str(caught.value) == (
        f"config error in {path}\n"
        "  line 1     sed = 1             unknown key - did you mean 'seed'?\n"
        '  line 2     train.lr = "fast"   expected a number, above 0, at most 100\n'
        "  override   seed = -1           expected a whole number, at least 0, below 4294967296\n"
        "3 problems; nothing was started. Valid keys: segatlas config schema"
    )


@pytest.mark.parametrize("value", ["true", "3.0", "'3'", "[3]", "{a: 3}", "three", "null"])
def test_only_a_whole_number_is_a_whole_number(value: str) -> None:
    assert only({}, f"train.accumulate={value}").message == "expected a whole number, at least 1"


@pytest.mark.parametrize(
    ("recipe", "key", "message"),
    [
        ({"train": None}, "train", "expected a group of keys"),
        ({"losses": "dice"}, "losses", "expected a list of names, or of groups of keys with `name`"),
        (
            {"losses": [{"weight": 2}]},
            "losses.0.name",
            "this key is required, one of: bending, boundary, box_masks, box_regions, center_mse, centers_offsets",
        ),
        ({"losses": [3]}, "losses.0", "a name or a group of keys with `name`, one of: bending, boundary"),
        ({"losses": [{"name": "dice", "class_weights": ["x"]}]}, "losses.0.class_weights.0", "expected a number"),
        (
            {"losses": [{"name": "dice", "class_weights": "x"}]},
            "losses.0.class_weights",
            "a list of numbers or one of: auto, median_frequency",
        ),
        ({"data": {"lists": {"trian": "x"}}}, "data.lists.trian", "expected as key one of: train, val, test"),
        ({"data": {"label_map": {"a": 1}}}, "data.label_map.a", "expected a whole number as key"),
        ({"data": {"label_map": {"1": "a"}}}, "data.label_map.1", "expected a whole number"),
        ({"data": {"palette": [[0, 0, 256]]}}, "data.palette.0.2", "at most 255"),
        ({"transforms": {"crop": [8]}}, "transforms.crop", "a list of 2 whole numbers, each above 0"),
        ({"transforms": {"crop": [8, 8, 8]}}, "transforms.crop", "a list of 2 whole numbers"),
        ({"transforms": {"resize": "640"}}, "transforms.resize", "expected short:N, long:N, fit:SHORTxLONG or HxW"),
        (
            {"eval": {"tta": ["flip"]}},
            "eval.tta.0",
            "expected 'flips', 'vertical', 'turns', 'scales:0.75,1.25' or 'exp'",
        ),
    ],
)
def test_each_kind_of_wrong_value_is_told_in_plain_words(recipe: dict[str, Any], key: str, message: str) -> None:
    problem = only(recipe)
    assert problem.key == key
    assert message in problem.message


def test_a_file_is_laid_over_its_bases_two_levels_deep(tmp_path: Path) -> None:
    write(tmp_path / "parts/lowest.yaml", "seed: 1\ntrain: {lr: 0.1, batch: 2}\nlosses: [dice, focal]\n")
    write(tmp_path / "parts/low.yaml", "base: lowest.yaml\ntrain: {lr: 0.2}\n")
    write(tmp_path / "other.yaml", "train: {batch: 3}\nlog: {every: 7}\n")
    cfg = Config.load(write(tmp_path / "top.yaml", "base: [parts/low.yaml, other.yaml]\nlosses: [dice]\n"))
    assert (cfg.seed, cfg.train.lr, cfg.train.batch, cfg.log.every) == (1, 0.2, 3, 7)
    assert [term.name for term in cfg.losses] == ["dice"]


def test_a_base_may_be_a_shipped_recipe() -> None:
    assert Config.load({"base": "unet_shapes", "seed": 9}).data.name == "shapes"


def test_a_third_level_of_bases_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "d.yaml", "seed: 1\n")
    for name, base in (("c", "d"), ("b", "c"), ("a", "b")):
        write(tmp_path / f"{name}.yaml", f"# a note\nbase: {base}.yaml\n")
    problem = only(tmp_path / "a.yaml")
    assert (problem.key, problem.got, problem.line) == ("base", "d.yaml", 2)
    assert problem.file == str(tmp_path / "c.yaml")
    assert problem.message == "bases are at most 2 levels deep"


def test_a_recipe_that_is_its_own_base_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "base: b.yaml\n")
    write(tmp_path / "b.yaml", "base: a.yaml\n")
    problem = only(tmp_path / "a.yaml")
    assert (problem.file, problem.line, problem.message) == (str(tmp_path / "b.yaml"), 1, "this recipe is its own base")


@pytest.mark.parametrize("base", ["3", "{a: b}", "[1]"])
def test_a_base_that_is_no_name_is_a_problem(tmp_path: Path, base: str) -> None:
    assert "recipe's name or path" in only(write(tmp_path / "a.yaml", f"base: {base}\n")).message


def test_a_missing_base_names_the_line_that_asks_for_it(tmp_path: Path) -> None:
    problem = only(write(tmp_path / "a.yaml", "seed: 1\nbase: unet_shape\n"))
    assert (problem.file, problem.line, problem.key) == (str(tmp_path / "a.yaml"), 2, "base")
    assert "did you mean 'unet_shapes'" in problem.message


def test_a_problem_in_a_base_names_the_bases_file_and_line(tmp_path: Path) -> None:
    base = write(tmp_path / "low.yaml", "seed: 1\ntrain:\n  lr: fast\n")
    problem = only(write(tmp_path / "top.yaml", "base: low.yaml\ntrain:\n  batch: 2\n"))
    assert (problem.file, problem.line, problem.key) == (str(base), 3, "train.lr")
    with pytest.raises(ConfigError, match=r"low\.yaml:3 "):
        Config.load(tmp_path / "top.yaml")


def test_a_value_that_replaces_a_faulty_one_of_a_base_is_fine(tmp_path: Path) -> None:
    write(tmp_path / "low.yaml", "train: {lr: fast}\n")
    assert Config.load(write(tmp_path / "top.yaml", "base: low.yaml\ntrain: {lr: 1}\n")).train.lr == 1


def test_an_unknown_recipe_names_the_nearest() -> None:
    assert "did you mean 'unet_folder'?" in only("unet_foldr").message


def test_a_missing_file_is_named_with_the_nearest_recipe(tmp_path: Path) -> None:
    message = only(tmp_path / "unet_shape.yaml").message
    assert "no such file" in message
    assert "did you mean 'unet_shapes'" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"# nothing but a note\n", "the file is empty"),
        (b"---\n", "the file is empty"),
        (b"- a\n- b\n", "expected `key: value` lines"),
        (b"just words\n", "expected `key: value` lines"),
        (b"seed: \xff\xfe\n", "is not text in UTF-8 (byte 0xff at offset 6)"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    problem = only(path)
    assert (problem.file, problem.line) == (str(path), 1)
    assert message in problem.message


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").mkdir()
    assert "a folder" in only(tmp_path / "a.yaml").message
    assert "a folder" in only(tmp_path).message


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfseed: 4\n")
    assert Config.load(path).seed == 4


@pytest.mark.parametrize("source", ["unet_shapes", "unet_folder", "segformer_cityscapes"])
def test_yaml_that_was_written_is_read_back_equal(tmp_path: Path, source: str) -> None:
    own = ["data.label_map={3: 0, 4: 255}", "data.ignore=[7, nan]"] if source == "unet_folder" else []
    cfg = Config.load(source, "train.lr=1e-7", "run.name='1e3'", "losses=[dice, focal]", *own)
    text = to_yaml(cfg)
    assert Config.load(write(tmp_path / "other.yaml", text)) == cfg
    assert to_yaml(Config.load(tmp_path / "other.yaml")) == text


def test_yaml_holds_every_key_in_the_schemas_order() -> None:
    keys = [line.split(":")[0] for line in to_yaml(Config()).splitlines() if not line.startswith(" ")]
    assert keys == list(Config.model_fields)


def test_the_model_check_sees_the_section_and_its_problems_get_their_place(tmp_path: Path) -> None:
    seen = []

    def check(model: object) -> list[Problem]:
        seen.append(model)
        return [Problem(key="model.depth", message="too deep")]

    path = write(tmp_path / "a.yaml", "seed: x\nmodel:\n  name: unet\n  depth: 9\n")
    found = [(p.line, p.key, p.got) for p in problems_of(path, check_model=check)]
    assert found == [(1, "seed", '"x"'), (4, "model.depth", "9")]
    assert seen == [{"name": "unet", "depth": 9}]


def test_the_model_check_is_left_out_where_the_name_is_no_text() -> None:
    found = problems_of({"model": {"name": 3}}, check_model=lambda model: [Problem(key="", message="")])
    assert [p.key for p in found] == ["model.name"]


def test_the_model_check_is_left_out_where_the_section_is_a_shipped_recipes_own() -> None:
    seen: list[Any] = []

    def check(model: Any) -> list[Problem]:
        seen.append(model)
        return []

    Config.load("unet_shapes", "train.epochs=3", check_model=check)
    assert seen == []
    Config.load("unet_shapes", "model.num_classes=3", check_model=check)
    Config.load("unet_shapes", "model.decoder_channels.0=5", check_model=check)
    assert [(model.get("num_classes"), model["decoder_channels"][0]) for model in seen] == [(3, 96), (None, 5)]


def test_rules_look_at_sound_keys_while_others_are_faulty() -> None:
    found = {p.key for p in problems_of({"train": {"epochs": 1, "steps": 1, "lr": "x"}, "losses": [{"name": "x"}]})}
    assert found == {"train.lr", "losses.0.name", "train.epochs"}


def test_a_rule_is_left_out_where_its_own_key_is_faulty() -> None:
    assert [p.key for p in problems_of({"train": {"epochs": "x", "steps": None}})] == ["train.epochs"]


def test_shipped_recipes_are_called_folder_and_file() -> None:
    found = recipes()
    assert {"unet_shapes", "unet_folder", "unet_camvid", "unet_voc", "segformer_shapes"} <= set(found)
    assert all(f"{path.parent.name}_{path.stem}" == name and path.is_file() for name, path in found.items())
    assert not any(path.parent.name == "_base_" for path in found.values())


def test_the_json_schema_knows_base_and_losses_by_name() -> None:
    schema = json_schema()
    assert "base" in schema["properties"]
    names, terms = schema["properties"]["losses"]["items"]["anyOf"]
    assert "dice" in names["enum"]
    assert "discriminator" in terms
    assert schema["additionalProperties"] is False


def test_a_faulty_recipe_is_reported_without_reading_any_other_room(tmp_path: Path) -> None:
    before = set(sys.modules)
    problems_of({"train": {"epoch": 3}})
    rooms = {name.split(".")[1] for name in set(sys.modules) - before if name.startswith("segatlas.")}
    assert rooms <= {"config", "errors"}
