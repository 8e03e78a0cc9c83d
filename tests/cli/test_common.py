from __future__ import annotations

import json
from pathlib import Path

import pytest

from segatlas.cli.common import human, load_recipe, print_json_line, split_words
from segatlas.errors import UsageError


@pytest.mark.parametrize(
    ("words", "recipe", "overrides"),
    [
        (None, None, []),
        (["unet_shapes"], "unet_shapes", []),
        (["unet_shapes", "a=1", "b=2"], "unet_shapes", ["a=1", "b=2"]),
        (["a=1"], None, ["a=1"]),
        (["runs/x=1/config.yaml"], None, ["runs/x=1/config.yaml"]),
    ],
)
def test_the_first_word_is_the_recipe_unless_it_holds_an_equals_sign(
    words: list[str] | None, recipe: str | None, overrides: list[str]
) -> None:
    assert split_words(words) == (recipe, overrides)


@pytest.mark.parametrize("words", [["a", "b"], ["a=1", "unet_shapes"]])
def test_a_second_recipe_is_a_usage_error(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r"expected KEY=VALUE, got '(b|unet_shapes)'"):
        split_words(words)


def test_a_recipe_and_a_file_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="not both"):
        load_recipe(["unet_shapes"], Path("a.yaml"))


def test_overrides_alone_are_laid_over_the_defaults(tmp_path: Path) -> None:
    assert load_recipe(["seed=3"]).seed == 3
    path = tmp_path / "a.yaml"
    path.write_text("seed: 4\n")
    cfg = load_recipe(["train.batch=2"], path)
    assert (cfg.seed, cfg.train.batch) == (4, 2)


def test_the_json_line_is_one_line_and_people_read_stderr_then(capsys: pytest.CaptureFixture[str]) -> None:
    human(json_line=True).print("for people")
    print_json_line({"path": Path("a/b"), "text": "two\nlines ü"})
    human().print("done")
    out, err = capsys.readouterr()
    line, rest = out.split("\n", 1)
    assert json.loads(line) == {"path": "a/b", "text": "two\nlines ü"}
    assert (err, rest) == ("for people\n", "done\n")
