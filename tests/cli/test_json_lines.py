from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.command_tree import TREE
from json_lines import checked_line
from typer.testing import CliRunner

from segatlas.cli import common
from segatlas.cli.json_lines import JSON_LINES, line_schema
from segatlas.cli.main import app


def run(*words: str):
    return CliRunner().invoke(app, list(words))


def test_every_command_takes_json_and_what_it_prints_is_published() -> None:
    leaves = {path: command for path, command in TREE.items() if not hasattr(command, "commands")}
    assert set(JSON_LINES) == set(leaves)
    for command in leaves.values():
        assert "--json" in {name for parameter in command.params for name in parameter.opts}


@pytest.mark.parametrize("command", JSON_LINES)
def test_every_line_has_a_schema_that_tells_its_keys(command: str) -> None:
    schema = line_schema(command)
    assert json.loads(json.dumps(schema)) == schema
    assert '"additionalProperties": false' not in json.dumps(schema) or command == "config show"
    assert {"properties", "anyOf", "items"} & set(schema)


def test_the_schema_of_a_line_is_printed_and_an_unknown_command_is_told_with_the_nearest() -> None:
    printed = run("config", "schema", "--of", "data check")
    assert json.loads(printed.stdout) == line_schema("data check")
    in_one_line = run("config", "schema", "--of", "segatlas data check", "--json")
    assert json.loads(in_one_line.stdout) == line_schema("data check")
    wrong = run("config", "schema", "--of", "data chek")
    assert wrong.exit_code == 2
    assert "data check" in wrong.stderr


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ({"ok": True, "recipe": "a", "more": 1}, "more"),
        ({"ok": True}, "recipe"),
        ({"ok": True, "recipe": 3}, "recipe"),
    ],
)
def test_all_tests_compare_lines_and_see_a_key_more_or_less_or_of_another_kind(
    monkeypatch: pytest.MonkeyPatch, line: dict[str, object], fault: str
) -> None:
    monkeypatch.setattr("json_lines._running", ["config check"])
    assert common.json_line is checked_line
    common.print_json_line({"ok": True, "recipe": "a"})
    with pytest.raises(AssertionError, match=f"segatlas config check --json: .*\n{fault}"):
        common.print_json_line(line)


def test_lines_that_no_other_test_prints(tmp_path: Path) -> None:
    sizes = ("--train", "1", "--val", "1", "--test", "0", "--size", "32x32", "--json")
    masks = (
        "explain",
        "boundary-labels",
        str(tmp_path / "make-shapes" / "val" / "masks"),
        "--out",
        str(tmp_path / "b"),
    )
    for words in (
        *(("data", command, str(tmp_path / command), *sizes) for command in ("make-shapes", "make-pairs")),
        (*masks, "--json"),
        ("models", "list", "--published", "fcn-*", "--json"),
        ("models", "info", "fcn-r50-ade20k", "--json"),
        ("config", "schema", "--recipes", "--json"),
        ("config", "schema", "--json"),
    ):
        done = run(*words)
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)
