from __future__ import annotations

from pathlib import Path

import pytest

from segatlas.data.shapes import make_shapes
from segatlas.recipe import Config


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small generated dataset, made once."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    make_shapes(root, train=10, val=3, test=2, size=(32, 48), seed=1)
    return root


@pytest.fixture
def recipe(shapes: Path, tmp_path: Path):
    """Return a maker of small recipes that exercise dropout, EMA, accumulation and augmentation."""

    def make(*overrides: str, name: str = "run", model: dict[str, object] | None = None) -> Config:
        return Config.load(
            {
                "seed": 7,
                "run": {"dir": str(tmp_path / name), "root": str(tmp_path / "runs")},
                "model": model or {"name": "unet", "width": 4, "dropout": 0.2},
                "data": {"name": "shapes", "root": str(shapes), "workers": 0},
                "transforms": {"scale": [0.8, 1.25], "crop": [32, 32], "photometric": {}},
                "losses": [{"name": "cross_entropy"}, {"name": "dice", "weight": 0.5}],
                "train": {"epochs": 2, "batch": 2, "lr": 1e-2, "device": "cpu", "threads": 1},
                "log": {"every": 1, "tensorboard": False, "samples": 1},
            },
            *overrides,
        )

    return make
