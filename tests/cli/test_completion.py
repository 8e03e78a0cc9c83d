from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import segatlas
from segatlas.cli import completion
from segatlas.cli.main import app

SRC = Path(segatlas.__file__).parent.parent
BASH = """
. ./complete.bash
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _segatlas_completion segatlas; echo "${COMPREPLY[*]}"; }
"""
ASKED = {
    "tra": "train",
    "models l": "list",
    "train bisenetv2_city": "bisenetv2_cityscapes",
    "train unet_shapes train.precision = b": "bf16",
    "train unet_shapes train.precision =": "fp32 bf16 fp16",
    "train --config a.yaml train.deterministic =": "true false",
    "eval segformer-b0-ade": "segformer-b0-ade20k",
    "models list --task pan": "panoptic",
    "train unet_shapes train.ep": "train.epochs= train.epochs=null",
}
"""Words behind `segatlas`, the last one unfinished -> what bash offers."""


def source() -> str:
    return CliRunner().invoke(app, [], env={"_SEGATLAS_COMPLETE": "source_bash"}).stdout


def offered(*words: str) -> list[str]:
    """Return what is offered for the last of the words behind `segatlas`, as bash asks for it."""
    asked = {"COMP_WORDS": "\n".join(["segatlas", *words]), "COMP_CWORD": str(len(words))}
    answer = CliRunner().invoke(app, [], env={"_SEGATLAS_COMPLETE": "complete_bash", **asked})
    return answer.stdout.split("\n")[:-1] if answer.stdout.strip() else []


def asked_of_bash(folder: Path, words: list[str]) -> list[str]:
    """Return what a real bash offers for each, with the script that --install-completion installs."""
    (folder / "complete.bash").write_text(source())
    command = folder / "segatlas"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m segatlas "$@"\n')
    command.chmod(0o755)
    place = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(SRC)}
    script = BASH + "\n".join(f"try segatlas {word}" for word in words)
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=folder, env=place, capture_output=True, text=True, timeout=200, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_real_bash_completes_a_value_behind_a_key(tmp_path: Path) -> None:
    words = "train unet_shapes train.precision = b"
    assert asked_of_bash(tmp_path, [words]) == [ASKED[words]]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_real_bash_completes_commands_recipes_models_and_keys_too(tmp_path: Path) -> None:
    assert asked_of_bash(tmp_path, list(ASKED)) == list(ASKED.values())


@pytest.mark.parametrize("words", ASKED)
def test_what_bash_would_be_offered(words: str) -> None:
    assert " ".join(offered(*words.split())) == ASKED[words]


def test_shells_that_keep_key_and_value_together_get_both() -> None:
    whole = ["train.precision=fp32", "train.precision=fp16"]
    assert offered("train", "unet_shapes", "train.precision=f") == whole
    context = type("Context", (), {"params": {"words": ("unet_shapes",)}})()
    assert completion.recipe_words(context, "train.precision=f") == ["train.precision=fp32", "train.precision=fp16"]
    assert completion.recipe_words(context, "train.device=c") == ["train.device=cpu", "train.device=cuda"]
    assert completion.recipe_words(context, "train.deterministic=") == [
        "train.deterministic=true", "train.deterministic=false",
    ]  # fmt: skip


def test_keys_are_offered_group_by_group_and_one_alone_in_two_words() -> None:
    assert completion.key_words("tr") == ["train.", "transforms."]
    assert {"train.optimizer.", "train.batch="} <= set(completion.key_words("train."))
    assert completion.key_words("train.prec") == ["train.precision=", "train.precision=fp32"]
    assert completion.key_words("nope") == []
    assert completion.values_of("train.batch") == ["auto", "8"]
    assert "resnet18" in completion.values_of("model.encoder")


def test_runs_are_offered_as_models_and_published_names_from_the_first_letter_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a-001", "last"):
        (tmp_path / "runs" / "semantic" / name / "model").mkdir(parents=True)
    assert offered("predict", "") == ["runs/semantic/last", "runs/semantic/a-001"]
    assert offered("models", "info", "segformer_b0") == ["segformer_b0"]
    assert "segformer-b0-ade20k" in offered("models", "info", "segformer")


def test_the_first_word_alone_is_a_recipe() -> None:
    assert "unet_shapes" in offered("train", "unet_")
    assert offered("train", "unet_shapes", "unet_") == []
    assert offered("train", "--config", "a.yaml", "unet_") == []
    assert offered("train", "--device", "cu") == ["cuda"]
    assert offered("config", "schema", "--of", "bench") == ["bench"]
