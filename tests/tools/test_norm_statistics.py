from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import norm_statistics
import segatlas


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = segatlas.create_model("fc_densenet56", num_classes=2, width=4, growth=2, layers=(1, 1, 1))
    return segatlas.save_pretrained(net, tmp_path_factory.mktemp("norms") / "model", classes=["a", "b"])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index in range(2):
        values = np.random.default_rng(index).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{index}.png")
    return folder


def state(folder: Path) -> dict[str, Tensor]:
    return segatlas.load(folder, device="cpu").model.state_dict()


def test_statistics_are_those_of_the_images_and_the_weights_stay(model: Path, images: Path, tmp_path: Path) -> None:
    norm_statistics.main([str(model), str(images), str(tmp_path / "new")])
    before, after = state(model), state(tmp_path / "new")
    predictor = segatlas.load(model, device="cpu")
    stem = predictor.model.get_submodule("encoder.stem")
    maps = [stem(predictor.prepare(images / f"{index}.png").pixels[None]) for index in range(2)]
    expected = torch.stack([values.mean((0, 2, 3)) for values in maps]).mean(0)
    assert torch.allclose(after["encoder.blocks.0.layers.0.0.running_mean"], expected, atol=1e-5)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert all("running_" in key or "num_batches" in key for key in changed)


def test_dropout_changes_what_later_norms_see() -> None:
    values = torch.ones(1, 4, 64, 64)
    seen = {}
    for dropout in (False, True):
        net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(4)).eval()
        norm_statistics.forget(net, dropout)
        net(values)
        seen[dropout] = net[1].running_var.mean().item()
    assert seen[False] == 0
    assert seen[True] == pytest.approx(1, abs=0.05)


def test_a_folder_without_images_is_told(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        norm_statistics.main([str(model), str(tmp_path), str(tmp_path / "new")])
    assert "no PNG or JPEG image" in capsys.readouterr().err
