"""What `segatlas train` makes of its words, and what it prints; the training itself is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.recipe import Config
from segatlas.training.checkpoints import Interrupted
from segatlas.training.run import Run


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Config]:
    """The recipes that were trained, each to the same score."""
    asked: list[Config] = []

    def train(config: Config, **_: object) -> Run:
        asked.append(config)
        return Run(dir=tmp_path / "run", best=tmp_path / "run" / "model", metrics={"miou": 0.5, "kappa": 0.25})

    monkeypatch.setattr("segatlas.training.fit.train", train)
    return asked


def run(*words: str):
    return CliRunner().invoke(app, ["train", "unet_shapes", "data.root=shapes", *words])


def test_device_devices_and_precision_are_short_for_their_keys(trained: list[Config]) -> None:
    assert run("--device", "cpu", "--devices", "2", "--precision", "bf16").exit_code == 0
    assert (trained[0].train.device, trained[0].train.devices, trained[0].train.precision) == ("cpu", 2, "bf16")
    wrong = run("--device", "gpu")
    assert wrong.exit_code == 2
    assert "train.device" in wrong.stderr


def test_quiet_leaves_the_score(trained: list[Config], tmp_path: Path) -> None:
    assert run("--quiet").stdout == f"{tmp_path}/run/model: miou 0.5000\n"
    assert "report: " in run().stdout
    line = run("--quiet", "--json")
    assert (line.stderr, line.stdout.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    ("is_there", "told"), [(True, "continue with: segatlas train --resume"), (False, "nothing is")]
)
def test_an_interrupted_run_says_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_there: bool, told: str
) -> None:
    def train(*_: object, **__: object) -> Run:
        raise Interrupted(tmp_path if is_there else tmp_path / "gone", saved=False)

    monkeypatch.setattr("segatlas.training.fit.train", train)
    done = run()
    assert done.exit_code == 130
    assert told in done.stderr
