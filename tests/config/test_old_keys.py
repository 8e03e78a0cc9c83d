"""Keys of recipes under the names that earlier versions gave them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from segatlas.config import Config
from segatlas.config.old_keys import OLD_KEYS
from segatlas.errors import ConfigError
from segatlas.recipe import Config as CheckedConfig

LOSSES = "losses: [{name: cross_entropy}, {name: cross_entropy_dice}]\n"
PATHS = [
    (old.replace("*", "1"), ".".join([*old.replace("*", "1").split(".")[:-1], new])) for old, new in OLD_KEYS.items()
]


def nested(key: str, value: Any) -> Any:
    """Return plain data with one value at a dotted key; the only list is that of the losses."""
    first, _, rest = key.partition(".")
    inner = nested(rest, value) if rest else value
    if first == "1":
        return [{"name": "cross_entropy"}, {"name": "cross_entropy_dice", **inner}]
    return {first: inner}


def merged(one: Any, other: Any) -> Any:
    if isinstance(one, dict):
        return {
            key: merged(one[key], other[key]) if key in one and key in other else (one | other)[key]
            for key in one | other
        }
    return [merged(a, b) for a, b in zip(one, other, strict=True)] if isinstance(one, list) else other


def value(cfg: Config, key: str) -> Any:
    found: Any = cfg
    for part in key.split("."):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    return found


def write(file: Path, tree: Any, base: str = "") -> Path:
    import yaml

    file.write_text(base + yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return file


def test_each_key_of_the_table_has_another_name_today_and_none_is_a_key_of_today():
    assert PATHS
    for old, new in PATHS:
        assert value(Config.load(nested(new, 0.375)), new) == 0.375
        assert old != new


@pytest.mark.parametrize(("old", "new"), PATHS)
def test_an_old_key_is_read_from_a_file_a_base_a_dict_and_a_word(tmp_path, old, new):
    file = write(tmp_path / "old.yaml", nested(old, 0.375))
    above = write(tmp_path / "above.yaml", {"seed": 1}, "base: old.yaml\n")
    losses = write(tmp_path / "losses.yaml", nested("losses.1.on", "logits"))
    for cfg in (
        Config.load(file),
        Config.load(above),
        Config.load(nested(old, 0.375)),
        Config.load(losses, f"{old}=0.375"),
    ):
        assert value(cfg, new) == 0.375


def test_an_old_key_inside_the_value_of_a_word_is_read():
    cfg = Config.load({}, "transforms.blur={share: 0.375}", "losses=[{name: cross_entropy_dice, dice_share: 0.25}]")
    assert value(cfg, "transforms.blur.probability") == 0.375
    assert value(cfg, "losses.0.dice_fraction") == 0.25


@pytest.mark.parametrize(("old", "new"), PATHS)
def test_one_log_line_says_the_old_key_the_new_one_and_where_it_stands(tmp_path, caplog, old, new):
    file = write(tmp_path / "old.yaml", nested(old, 0.375))
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "0.375" in text)
    with caplog.at_level(logging.INFO, logger="segatlas"):
        Config.load(file)
    name = new.rsplit(".", 1)[-1]
    assert caplog.messages == [f"old keys, read under their new names: {old} is called {name} ({file}:{line})"]


def test_all_old_keys_of_one_layer_stand_in_one_log_line(caplog):
    Config.load({"data": {"val_share": 0.5}, "transforms": {"blur": {"share": 0.5}}}, "data.val_share=0.25")
    assert len(caplog.messages) == 2
    assert "data.val_share is called val_fraction (dict); transforms.blur.share is called" in caplog.messages[0]
    assert "data.val_share is called val_fraction (override)" in caplog.messages[1]


@pytest.mark.parametrize(("old", "new"), PATHS)
def test_old_and_new_key_together_in_one_layer_are_an_error_with_both_places(tmp_path, old, new):
    file = write(tmp_path / "both.yaml", merged(nested(old, 0.375), nested(new, 0.5)))
    lines = {
        text.split(":")[0].strip(" -"): n for n, text in enumerate(file.read_text().splitlines(), 1) if "0." in text
    }
    with pytest.raises(ConfigError) as caught:
        CheckedConfig.load(file)
    problem = caught.value.problems[0]
    name = new.rsplit(".", 1)[-1]
    assert len(caught.value.problems) == 1
    assert (problem.key, problem.file, problem.line) == (old, str(file), lines[old.rsplit(".", 1)[-1]])
    assert f"the old name of {name}, which is set too ({file}:{lines[name]})" in problem.message


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(("old", "new"), PATHS)
def test_old_and_new_key_together_among_the_words_are_an_error_in_any_order(old, new, order):
    with pytest.raises(ConfigError, match="leave one of them out") as caught:
        Config.load(nested("losses.1.on", "logits"), *[f"{old}=0.375", f"{new}=0.5"][::order])
    assert [problem.key for problem in caught.value.problems] == [old]


@pytest.mark.parametrize(("old", "new"), PATHS)
def test_a_higher_layer_wins_whichever_name_it_uses(tmp_path, old, new):
    for below, above in ((old, new), (new, old)):
        write(tmp_path / "below.yaml", nested(below, 0.5))
        file = write(tmp_path / "above.yaml", nested(above, 0.375), "base: below.yaml\n")
        assert value(Config.load(file), new) == 0.375
        assert value(Config.load(tmp_path / "below.yaml", f"{above}=0.375"), new) == 0.375


def test_a_fault_in_the_value_of_an_old_key_is_told_with_its_line(tmp_path):
    file = write(tmp_path / "old.yaml", {"seed": 1, "data": {"val_share": 7}})
    with pytest.raises(ConfigError) as caught:
        CheckedConfig.load(file)
    problem = caught.value.problems[0]
    assert (problem.key, problem.file, problem.line, problem.got) == ("data.val_fraction", str(file), 3, "7")


def test_a_key_of_another_section_by_the_name_of_an_old_one_stays_unknown():
    with pytest.raises(ConfigError, match="unknown key"):
        Config.load({"train": {"share": 0.5}})
