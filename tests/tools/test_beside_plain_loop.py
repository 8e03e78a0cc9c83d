"""The plain loop that recipes are compared with: it learns, and image and labels are turned alike."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.thin import write_thin
from torch import nn

import beside_plain_loop
from segatlas.build.network import create_model
from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory):
    root = write_thin(tmp_path_factory.mktemp("thin"), counts={"train": 3, "val": 1}, size=(32, 48), width=2, curves=2)
    return create_dataset(DataConfig(root=str(root)), "train")


def test_images_and_labels_are_turned_alike_and_padding_is_ignored(data) -> None:
    sample = data.load(0)
    seen = set()
    for seed in range(12):
        image, label = beside_plain_loop.turned(data, 0, np.random.default_rng(seed))
        assert image.shape[1:] == label.shape
        assert np.corrcoef(image[0].ravel(), label.ravel())[0, 1] == pytest.approx(
            np.corrcoef(sample.image[..., 0].ravel(), sample.label.ravel())[0, 1], abs=1e-5
        )
        seen.add(label.tobytes())
    assert len(seen) > 3
    images, labels = beside_plain_loop.padded(
        [beside_plain_loop.turned(data, index, np.random.default_rng(index)) for index in range(3)]
    )
    assert images.shape[1:] == (1, *labels.shape[1:])
    assert (images[labels[:, None] == 255] == 0).all()


def test_the_loop_takes_its_steps(data, monkeypatch) -> None:
    small = create_model("unet", width=4, num_classes=2, in_channels=1)
    before = [weight.clone() for weight in small.parameters()]
    monkeypatch.setattr(beside_plain_loop, "create_model", lambda *_, **__: small)
    net = beside_plain_loop.plain_loop(data, steps=2, batch=2, seed=0, weights=None)
    assert isinstance(net, nn.Module)
    assert not net.training
    assert any((weight != old).any() for weight, old in zip(net.parameters(), before, strict=True))
