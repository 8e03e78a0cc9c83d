from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import segatlas
from segatlas.cli import common, main
from segatlas.errors import MissingExtraError, TrainingError, UsageError

SRC = str(Path(segatlas.__file__).parent.parent)
LIGHT = """
import sys
from typer.testing import CliRunner
import segatlas
from segatlas.cli.main import app

codes = []
for line in ("--help", "--version", "config --help", "config show unet_shapes", "config check x", "config schema",
             "config check unet_shapes train.epoch=3", "config check model.name=unett", "doctor --help", "tran",
             "models list --dataset ade20k", "config schema --of eval", "train x --epochs 3", "test", "train imgsz=512",
             "train x.py", "predict model=x.pt"):
    codes.append(CliRunner().invoke(app, line.split()).exit_code)
assert codes == [0, 0, 0, 0, 2, 0, 2, 2, 0, 2, 0, 0, 2, 2, 2, 2, 2], codes
for line in ("train unet", "train unet_shapes train.", "train unet_shapes model.name =", "eval segf", "bench segf"):
    words = ["segatlas", *line.split()]
    asked = {"COMP_WORDS": "\\n".join(words), "COMP_CWORD": str(len(words) - 1), "_SEGATLAS_COMPLETE": "complete_bash"}
    assert CliRunner().invoke(app, [], env=asked).stdout.strip(), line
heavy = {"torch", "torchvision", "timm", "lightning", "cv2", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""


def test_help_lists_completion_and_config_errors_load_no_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], capture_output=True, text=True, env={"PYTHONPATH": SRC}, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main.app, list(words))
    return result.exit_code, result.stdout, result.stderr


def test_help_lists_the_commands_of_the_table_in_its_order() -> None:
    code, out, _ = run("--help")
    assert code == 0
    places = [out.index(f"│ {command} ") for command in main.COMMANDS]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("predict", "", "photo.jpg", "--out", "maps"), "predict"),
        (("predict", "model", "photo.jpg", "--out", ""), "--out"),
        (("predict", "model", "photo.jpg", "--out="), "--out"),
        (("train", "unet_shapes", ""), "unet_shapes"),
        (("data", "check", ""), "data check"),
    ],
)
def test_an_empty_word_is_a_usage_error_that_says_where_it_stands(words, where):
    code, _, err = run(*words)
    assert code == 2
    assert f"nothing after {where}; is a variable of the shell empty?" in " ".join(err.split())


def test_a_misspelled_command_or_option_is_a_usage_error_with_the_nearest() -> None:
    code, _, err = run("doctr")
    assert code == 2
    assert "Did you mean 'doctor'?" in err
    code, _, err = run("doctor", "--jsn")
    assert code == 2
    assert "--json" in err


def test_the_version_is_printed() -> None:
    assert run("--version") == (0, f"{segatlas.__version__}\n", "")


def app_that_fails(error: BaseException) -> typer.Typer:
    app = typer.Typer(cls=main.CommandGroup)
    app.callback()(main.root)

    @app.command("fail")
    def fail(debug: common.DebugOption = False) -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UsageError("wrong word"), 2, "error: wrong word\n"),
        (TrainingError("the loss is NaN"), 1, "error: the loss is NaN\n"),
        (
            MissingExtraError("export", "onnx", "export"),
            3,
            'error: export needs onnx - install it with: pip install "segatlas[export]"\n',
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (PermissionError(13, "Permission denied", "/out"), 1, "error: /out: Permission denied\n"),
        (
            ZeroDivisionError("by zero"),
            1,
            "unexpected error: ZeroDivisionError: by zero - rerun with --debug for the trace; please report it\n",
        ),
    ],
)
def test_an_error_ends_in_one_message_and_its_exit_code(
    error: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "COMMANDS", {"fail": None})
    result = CliRunner().invoke(app_that_fails(error), ["fail"])
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", message)


@pytest.mark.parametrize("words", [["--debug", "fail"], ["fail", "--debug"]])
def test_debug_before_or_after_the_command_shows_the_trace_of_that_command_only(words: list[str]) -> None:
    app = app_that_fails(UsageError("wrong word"))
    assert "Traceback" in CliRunner().invoke(app, words).stderr
    assert "Traceback" not in CliRunner().invoke(app, ["fail"]).stderr


def test_every_public_name_is_imported_for_type_checkers_and_listed() -> None:
    tree = ast.parse(Path(segatlas.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.name: f"segatlas.{alias.name}" if node.module == "segatlas" else f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == segatlas._PUBLIC
    assert set(segatlas.__all__) == {*segatlas._PUBLIC, "__version__"}
    assert set(segatlas._PUBLIC) <= set(dir(segatlas))


@pytest.mark.parametrize("name", sorted(segatlas._PUBLIC))
def test_every_public_name_is_what_the_table_says(name: str) -> None:
    module, _, attribute = segatlas._PUBLIC[name].partition(":")
    expected = importlib.import_module(module)
    assert getattr(segatlas, name) is (getattr(expected, attribute) if attribute else expected)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        segatlas.lod  # noqa: B018
