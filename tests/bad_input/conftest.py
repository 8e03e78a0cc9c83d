from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from fakes.folder import write_folder
from fakes.model import make_model
from typer.testing import CliRunner

from segatlas.cli.main import app


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def segatlas() -> Callable[..., Result]:
    """Run the command line in this process. Whatever happens, no stack trace may be shown."""

    def run(*words: object) -> Result:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of 4 + 2 images and masks of three classes."""
    return write_folder(tmp_path / "set", counts={"train": 4, "val": 2})


@pytest.fixture
def train(segatlas: Callable[..., Result], tmp_path: Path) -> Callable[..., Result]:
    """Train a tiny U-Net through the command line into tmp_path/run: one epoch of two steps."""

    def run(root: Path, *words: object) -> Result:
        settings = (
            "run.dir=" + str(tmp_path / "run"),
            "run.root=" + str(tmp_path / "runs"),
            "data.root=" + str(root),
            "data.workers=0",
            "model={name: unet, width: 4}",
            "transforms={crop: [32, 32]}",
            "train={epochs: 1, batch: 2, lr: 1e-2, device: cpu, threads: 1}",
            "eval={boundary: false, sizes: false}",
            "log={every: 1, tensorboard: false, samples: 1}",
        )
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text("seed: 3\n")
        return segatlas("train", "--config", recipe, *settings, *words)

    return run


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of three classes with random weights."""
    return make_model(tmp_path_factory.mktemp("model") / "net")
