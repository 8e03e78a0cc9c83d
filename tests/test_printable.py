from __future__ import annotations

import io
import json
import logging
import shlex

import pytest
import torch
from fakes.model import make_model
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.config import Config
from segatlas.config.yaml_tree import parse, write
from segatlas.errors import ConfigError, DataError, WeightsError
from segatlas.printable import SafeRecords, html_text, json_line, printable, printable_lines, shell_words, shortened
from segatlas.safe_console import SafeConsole, progress_bar

NASTY = "a\x1b[2J\r\nfake: ok\x9b\u202eb\u2066\u2028\ud800\x7f"


def is_safe(text: str, kept: str = "") -> bool:
    return all(char in kept or char.isprintable() for char in text)


def test_control_characters_become_escapes_and_readable_letters_stay():
    assert printable(NASTY) == r"a\x1b[2J\r\nfake: ok\x9b\u202eb\u2066\u2028\ud800\x7f"
    for text in ("straße", "道路 и небо", "नमस्ते", "می‌خواهم", "👩‍🚒 ❤️", "[red]x[/red]"):
        assert printable(text) == text
    assert printable_lines("a\n\tb\x1b") == "a\n\tb\\x1b"
    assert shortened("x" * 100, 10) == "xxxxxxx..."


def test_errors_and_recipe_problems_hold_no_control_characters():
    assert is_safe(str(WeightsError(NASTY)), "\n\t")
    assert str(DataError("bad", f"dir/{NASTY}")).count("\n") == 0
    with pytest.raises(ConfigError) as error:
        Config.load({"trai\x1b[31m\nn": 1})
    assert is_safe(str(error.value), "\n")
    assert "\\x1b[31m\\nn" in str(error.value)


def test_a_json_line_is_one_line_of_valid_json_that_gives_the_texts_back():
    line = json_line({"name": NASTY, "score": float("nan"), "items": [float("inf"), 1.5]})
    assert is_safe(line)
    assert json.loads(line) == {"name": NASTY, "score": None, "items": [None, 1.5]}


def test_the_console_shows_brackets_and_obeys_no_text():
    out = io.StringIO()
    SafeConsole(file=out, markup=False, width=200).print(f"[red]x {NASTY}")
    assert is_safe(out.getvalue(), "\n")
    assert "[red]x a\\x1b[2J" in out.getvalue()


def test_a_log_record_fakes_no_line():
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.addFilter(SafeRecords())
    handler.handle(logging.LogRecord("x", 20, "f", 1, "read %s", ("a\n2026 INFO fake\x1b",), None))
    assert out.getvalue() == "read a\n    2026 INFO fake\\x1b\n"


def test_a_page_shows_names_as_text():
    assert html_text("<b>\x1b\u202e&") == "&lt;b&gt;\\x1b\\u202e&amp;"


def test_commands_print_nasty_names_safely(tmp_path):
    names = (f"sky {NASTY.replace(chr(0xD800), '')}", "[red]road", "道")
    model = make_model(tmp_path / "net", classes=names)
    run = CliRunner().invoke
    for words in (["models", "info", str(model)], ["models", "info", str(model), "--json"]):
        result = run(app, words)
        assert result.exit_code == 0
        assert is_safe(result.stdout, "\n")
        assert "[red]road" in result.stdout
        assert "道" in result.stdout
    assert json.loads(result.stdout.splitlines()[-1])["card"]["classes"][0] == names[0]
    nasty_file = tmp_path / "w\x1b[2J\nerror: fake.pth"
    torch.save({"a\x1b\nerror: fake": torch.ones(1)}, nasty_file)
    result = run(app, ["models", "convert", str(nasty_file), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert is_safe(result.stderr, "\n")
    assert not any(line.startswith("error: fake") for line in result.stderr.splitlines())


def test_a_line_break_in_a_name_begins_no_line_of_a_command(tmp_path):
    fake = "x\nFAKE ok"
    images = tmp_path / fake
    images.mkdir()
    (images / f"{fake}.png").write_bytes(b"no image")
    (images / f"{fake}.txt").write_text("")
    model = make_model(tmp_path / "net", classes=("sky", fake))
    for words in (
        ["predict", str(model), str(images), "--out", str(tmp_path / "out")],
        ["models", "info", fake],
        ["models", "list", fake],
        ["models", "list", "--published", fake],
        ["bench", fake],
    ):
        result = CliRunner().invoke(app, words)
        assert "FAKE ok" in result.output
        assert not any(line.startswith("FAKE") for line in result.output.splitlines()), words


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 3000, "nested too deeply"),
        ("c: " + "{d: " * 30 + "1" + "}" * 30, "deep"),
        ("seed: " + "9" * 5000, "a number of more than 100 digits"),
        ('a: "\\UFFFFFFFF"', "not valid YAML"),
        ('a: "\\ud800"', "lone surrogate"),
        ('"\\ud800": 1', "lone surrogate"),
    ],
)  # fmt: skip
def test_a_recipe_that_no_reader_can_take_is_told(tmp_path, text, message):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        Config.load(tmp_path / "r.yaml")


def test_a_bomb_of_aliases_and_a_huge_file_are_refused(tmp_path):
    bomb = "a0: &a0 [1, 1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
    (tmp_path / "r.yaml").write_text(bomb)
    with pytest.raises(ConfigError, match="too large"):
        Config.load(tmp_path / "r.yaml")
    (tmp_path / "r.yaml").write_text("# \n" * 500_000)
    with pytest.raises(ConfigError, match="a recipe has at most"):
        Config.load(tmp_path / "r.yaml")


def test_values_that_no_recipe_holds_are_told_with_their_key():
    deep: dict = {}
    for _ in range(5000):
        deep = {"a": deep}
    for given, message in (
        ({"train": {"lr": object()}}, r"train\.lr .*a object"),
        (deep, "deep"),
        ({"seed": 10**200}, "digits"),
    ):
        with pytest.raises(ConfigError, match=message):
            Config.load(given)


def test_a_written_recipe_holds_no_marks_and_reads_back_equal():
    text = write({"a": "x\u202ey\x85", "b": "道"})
    assert is_safe(text, "\n")
    node, problems = parse(text, "f")
    assert problems == []
    assert node is not None
    assert node.plain() == {"a": "x\u202ey\x85", "b": "道"}


def test_a_progress_bar_shows_what_is_done_on_a_terminal_only_and_obeys_no_name():
    for terminal, shown in ((True, True), (True, False), (False, True)):
        out = io.StringIO()
        console = SafeConsole(file=out, force_terminal=terminal, width=100)
        with progress_bar(total=3, text_last=True, shown=shown, console=console) as bar:
            bar.step("a\x1b[31m[bold].png")
            bar.report(2, 3)
        assert ("2/3" in out.getvalue()) == (terminal and shown)
        assert ("[bold]" in out.getvalue()) == (terminal and shown)
        assert "\x1b[31m" not in out.getvalue()


def test_words_of_a_shell_come_back_from_it_and_are_as_a_person_would_type_them():
    words = ["a", "b c", "data.classes=['x', 'y']", 'it\'s "q"', "it's $1", "it's \\", "it's !", "", "道"]
    assert shlex.split(shell_words(words)) == words
    assert shell_words(words[:3]) == "a 'b c' \"data.classes=['x', 'y']\""
