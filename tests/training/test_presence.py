"""The head that tells which classes an image shows, through the command line."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from segatlas.checkpoint.model_folder import read_model
from segatlas.cli.main import app
from segatlas.hub.loading import find_model

DECODERS = {
    "linknet": "channels: 4",
    "unetplusplus": "decoder_channels: [8, 4], attention: scse",
    "manet": "decoder_channels: [8, 4], attention_channels: 4, reduction: 4",
    "fpn": "channels: 8, pyramid_channels: 8, groups: 4",
    "pan": "channels: 8",
}


def trained(shapes, out, name: str, classes: int, *words: str):
    model = f"{{name: {name}, encoder: resnet18_w8, {DECODERS[name]}, presence_classes: {classes}}}"
    losses = "[cross_entropy, {name: class_presence, weight: 0.2}]"
    given = [f"model={model}", f"losses={losses}", f"data.root={shapes}", f"run.dir={out}", *words]
    fixed = ["train.steps=2", "train.batch=2", "train.device=cpu", "train.threads=1", "data.workers=0"]
    return CliRunner().invoke(app, ["train", "unet_shapes", *fixed, *given])


@pytest.mark.parametrize(
    ("name", "classes"),
    [("linknet", 9), *(pytest.param(name, 2, marks=pytest.mark.slow) for name in DECODERS)],
)
def test_a_network_with_a_presence_head_trains_with_its_loss_and_keeps_the_head(shapes, tmp_path, name, classes):
    done = trained(shapes, tmp_path / "run", name, classes)
    assert done.exit_code == 0, done.output
    card, tensors = read_model(find_model(tmp_path / "run"))
    assert card.config["presence_classes"] == classes
    assert tensors["presence_head.linear.weight"].shape == (classes, 64)
    assert "aux.presence.class_presence=" in (tmp_path / "run" / "metrics.csv").read_text()


def test_the_loss_without_the_head_is_told_before_anything_is_read(shapes, tmp_path):
    done = trained(shapes, tmp_path / "run", "linknet", 0)
    assert done.exit_code == 2
    assert "aux.presence" in done.output
