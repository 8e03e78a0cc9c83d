from __future__ import annotations

import json
from pathlib import Path

import pytest

from segatlas.cli.common import aux_paths, human, load_recipe, named_aux, print_json_line, split_words
from segatlas.errors import UsageError
from segatlas.structures import InputSpec


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


# ---- further inputs
SPECS = (InputSpec(), InputSpec(name="prior", kind="label", required=False))


def test_a_path_alone_gets_the_name_of_the_one_source(tmp_path):
    odd = tmp_path / "a=b.png"  # a file of that name is a path, not NAME=PATH
    odd.touch()
    assert aux_paths(["prior.png"]) == {"": Path("prior.png")}
    assert aux_paths([str(odd), "more=x.png"]) == {"": odd, "more": Path("x.png")}
    assert named_aux(aux_paths(["prior.png"]), SPECS) == {"prior": Path("prior.png")}
    assert named_aux({"other": 1}, SPECS) == {"other": 1}
    assert named_aux(None, SPECS) is None


@pytest.mark.parametrize(
    ("words", "specs", "message"),
    [
        (["a.png", "b.png"], SPECS, "several without a name"),
        (["a=x", "a=y"], SPECS, "a is given twice"),
        (["x="], SPECS, "got 'x=', expected NAME=PATH"),
        ([""], SPECS, "got '', expected NAME=PATH"),
        (["a.png"], SPECS[:1], "takes an image alone"),
        (["a.png"], (*SPECS, InputSpec(name="before")), "takes prior, before; say which one it is: prior=PATH"),
        (["a.png", "prior=b.png"], SPECS, "prior is given twice, with and without its name"),
    ],
)
def test_a_wrong_number_or_form_of_further_inputs_is_told(words, specs, message):
    with pytest.raises(UsageError, match=message):
        named_aux(aux_paths(words), specs)
