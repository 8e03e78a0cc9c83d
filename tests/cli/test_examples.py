from __future__ import annotations

import shlex

import pytest
import typer
from fakes.command_tree import TREE
from typer.testing import CliRunner

from segatlas.cli.common import split_words
from segatlas.cli.examples import EXAMPLES, WIDTH, examples_text
from segatlas.cli.main import app
from segatlas.recipe import Config


def parsed(words: list[str]) -> tuple[str, dict[str, object]]:
    """Return the command that words name, and its parameters as the command line reads them; nothing is run."""
    path = []
    while words and " ".join([*path, words[0]]) in TREE:
        path.append(words.pop(0))
    name = " ".join(path)
    context = TREE[name].make_context(name, words)
    context.close()
    return name, context.params


def test_every_command_and_group_has_examples_and_shows_them() -> None:
    assert set(EXAMPLES) == set(TREE)
    for path in ("", "data", "data check"):
        shown = CliRunner().invoke(app, [*path.split(), "--help"]).stdout
        assert shown.rstrip().endswith(examples_text(path))


@pytest.mark.parametrize("path", EXAMPLES)
def test_every_example_is_read_by_the_command_line_and_fits_into_a_terminal(path: str) -> None:
    assert len(set(EXAMPLES[path])) == len(EXAMPLES[path]) > 0
    for example in EXAMPLES[path]:
        name, _ = parsed(shlex.split(example))
        assert name.startswith(path)
        assert name in EXAMPLES
        assert not hasattr(TREE[name], "commands")
    assert max(map(len, examples_text(path).splitlines())) <= WIDTH


def test_an_option_that_is_not_there_would_be_seen() -> None:
    with pytest.raises(typer.TyperException):
        parsed(shlex.split("train unet_folder --devise cuda"))


def test_recipes_and_keys_in_examples_are_there() -> None:
    recipes = set()
    for example in {example for examples in EXAMPLES.values() for example in examples}:
        name, params = parsed(shlex.split(example))
        recipe, overrides = split_words(params.get("words") if name in ("train", "distill", "config show") else None)
        if recipe:
            Config.load(recipe, *overrides)
            recipes.add(recipe)
    assert recipes == {"unet_folder", "unet_shapes"}
