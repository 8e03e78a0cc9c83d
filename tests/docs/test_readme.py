"""What both READMEs say beside their blocks, which `test_blocks.py` runs: commands, options and networks exist."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import click
import pytest
import typer
from docs_blocks import ROOT, check_files, check_make, files_named

import segatlas
from segatlas.cli.main import COMMANDS, app
from segatlas.models import ARCHITECTURES
from segatlas.tasks import TASKS

READMES = (ROOT / "README.md", ROOT / "README.zh.md")
LARGEST_IMAGE = 300_000
"""Bytes."""
CALLED = {
    "afma": "AFMA",
    "bisenetv2": "BiSeNet V1",
    "center": "centres|中心点",
    "deeplabv3plus": r"DeepLabV3 (and|和) V3\+",
    "irnet": "IRNet",
    "kfvton_seg": "KF-VTON",
    "linear": "linear classifier|线性分类器",
    "multisource": "MultiSource",
    "nonlocal_net": "Non-local",
    "pointrend_instance": "PointRend",
    "reference_class": "class of reference|参照类别",
    "semask_fpn": "SeMask",
    "stdc": "STDC",
    "temperature": "temperature|温度",
}
"""Architecture -> what the READMEs call it, where that is not its title."""

readmes = pytest.mark.parametrize("page", READMES, ids=lambda page: page.name)


def text_of(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@cache
def root() -> click.Command:
    return typer.main.get_command(app)


def options_of(command: click.Command) -> set[str]:
    return {name for option in command.params for name in option.opts} | {"--help"}


def all_options(command: click.Command) -> set[str]:
    return options_of(command).union(*(all_options(one) for one in getattr(command, "commands", {}).values()))


def check_command(words: list[str]) -> None:
    """Check a command and its options; words that it takes are left alone."""
    command = root()
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]  # type: ignore[attr-defined]
    assert not words or not hasattr(command, "commands"), f"{command.name} has no command {words[0]}"
    assert {word for word in words if word.startswith("--")} <= options_of(command)


def check_span(span: str) -> None:
    """Check what stands in code in a README; AssertionError where it is not there, or nothing here can tell."""
    words = span.split()
    if words[0] == "make":
        check_make(words)
        assert {word.removeprefix("TASK=") for word in words[1:] if "=" in word} <= set(TASKS)
    elif words[0] == "python":
        check_files(words)
    elif words[0] in ("segatlas", *COMMANDS) and span not in ("train", "evaluate"):
        check_command(words[1:] if words[0] == "segatlas" else words)
    elif words[0].startswith("--"):
        assert words[0] in all_options(root())
    elif words[0] != ".":  # `. .venv/bin/activate`
        assert hasattr(segatlas, span) or hasattr(segatlas.Predictor, span), f"`{span}` is nothing that this test knows"


@readmes
def test_whatever_stands_in_code_is_there(page: Path):
    spans = {" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text_of(page))} - set(files_named(page))
    assert len(spans) > 20
    for span in sorted(spans):
        check_span(span)


def test_what_is_not_there_is_found():
    missing = ("segatlas fly", "eval A --wings", "make coffee", "--wings", "predict_dreams", "python tools/none.py")
    for span in missing:
        with pytest.raises(AssertionError):
            check_span(span)


@readmes
def test_the_table_of_commands_has_all_of_them_in_their_order(page: Path):
    assert re.findall(r"^\| `segatlas ([\w-]+)` \|", text_of(page), flags=re.MULTILINE) == list(COMMANDS)


@readmes
def test_every_architecture_is_named(page: Path):
    text = " ".join(text_of(page).split())
    names = {name: CALLED.get(name) or re.escape(entry.title) for name, entry in ARCHITECTURES.items()}
    assert [name for name, words in names.items() if not re.search(words, text)] == []
    assert set(CALLED) <= set(ARCHITECTURES)
    (more_than,) = re.findall(r"More than (\d+) architectures|(\d+) 多种网络结构", text)
    assert int("".join(more_than)) < len(ARCHITECTURES)


@readmes
def test_the_image_on_top_is_there_and_small(page: Path):
    image, *others = re.findall(r"^!\[[^\]]+\]\(([^)]+)\)$", text_of(page), flags=re.MULTILINE)
    assert others == []
    assert (ROOT / image).stat().st_size < LARGEST_IMAGE
