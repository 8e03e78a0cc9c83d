"""A network around a host goes through the same commands as any: the recipe temperature_shapes on a few images."""

import json
import shutil

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import resume_campaign
from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.cli.main import app
from segatlas.data.shapes import GROUND, SHAPES, make_shapes
from segatlas.hub.loading import load_pretrained
from segatlas.training.module import SegmentationModule

CLASSES = (GROUND, *SHAPES)
HOST = {"name": "unet", "encoder": "resnet18_w8", "decoder_channels": [8, 8, 8, 8], "dropout": 0.2, "aux": True}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "shapes"
    make_shapes(root, train=4, val=2, test=1, size=(48, 64))
    return root


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A model folder of the network that is wrapped."""
    torch.manual_seed(3)
    fields = {key: value for key, value in HOST.items() if key != "name"}
    net = create_model(HOST["name"], num_classes=len(CLASSES), **fields)
    return save_pretrained(net, tmp_path_factory.mktemp("host") / "model", classes=CLASSES)


def words(shapes, host, run):
    return [
        "train", "temperature_shapes", f"data.root={shapes}", f"run.dir={run}", "data.workers=0", "data.store=null",
        f"model.start_from={host}", f"model.host={json.dumps(HOST)}", "transforms.crop=[32, 32]", "train.batch=2",
        "train.epochs=2", "train.checkpoint_every=1",
    ]  # fmt: skip


def call(*arguments):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def run(shapes, host, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "whole"
    call(*words(shapes, host, run))
    return run


def test_training_moves_the_temperature_and_leaves_a_frozen_host_as_it_was(run, host):
    net, card = load_pretrained(run)
    assert (card.architecture, card.config["host"]["name"]) == ("temperature", "unet")
    assert net.log_temperature.item() != 0
    inner = load_pretrained(host)[0].state_dict()
    assert all(torch.equal(net.host.state_dict()[name], tensor) for name, tensor in inner.items())


def test_a_wrapper_killed_and_resumed_ends_with_the_same_numbers(run, shapes, host, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    original = SegmentationModule.training_step

    def training_step(self, batch, batch_index):
        if self.global_step == 3:
            raise Killed
        return original(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", training_step)
        with pytest.raises(Killed):
            CliRunner().invoke(app, words(shapes, host, tmp_path / "cut"))
    call("train", "--resume", tmp_path / "cut")
    assert resume_campaign.differences(run, tmp_path / "cut") == []


def test_a_dry_run_names_the_encoder_and_the_weights_of_the_host(shapes, host, tmp_path):
    fcn = {"name": "fcn", "encoder": "resnet18_w8", "channels": 8}
    words_of_fcn = [*words(shapes, host, tmp_path / "no")[:6], f"model.host={json.dumps(fcn)}", "model.start_from=null"]
    done = call(*words_of_fcn, "train.freeze_host=false", "train.freeze_encoder=true", "train.batch=2", "--dry-run")
    assert "temperature, encoder resnet18_w8" in done.output
    assert not (tmp_path / "no").exists()


def test_eval_predict_bench_and_info_take_a_wrapper(run, shapes, tmp_path):
    line = json.loads(call("eval", run, "--json").stdout.splitlines()[-1])
    assert 0 <= line["miou"] <= 1
    image = next((shapes / "val" / "images").iterdir())
    call("predict", run, image, "--out", tmp_path / "out")
    assert (64, 48) in {Image.open(file).size for file in (tmp_path / "out").rglob("*.png")}
    call("bench", run, "--size", "32x32", "--threads", "1")
    assert "host=" in call("models", "info", run).output.replace(" ", "")
    assert "a network that gives SemanticLogits" in call("models", "info", "temperature").output
    assert "temperature" in call("models", "list").output


def test_a_loss_on_what_the_host_gives_is_taken_and_any_other_is_told(shapes, host, tmp_path):
    own = [word for word in words(shapes, host, tmp_path / "no") if not word.startswith("train.epochs")]
    own.append("train.schedule.warmup=0")
    on = "losses=[cross_entropy, {name: cross_entropy, on: aux.%s}]"
    call(*own, on % "fcn", "train.freeze_host=false", "--dry-run")
    for name, further in (("points", ["train.freeze_host=false"]), ("fcn", [])):  # in eval mode there is none
        result = CliRunner().invoke(app, [*own, on % name, *further, "--dry-run"])
        assert result.exit_code == 2
        assert "losses.1.on" in result.output


def test_a_start_that_is_not_there_is_told(shapes, host, tmp_path):
    own = words(shapes, host, tmp_path / "no")
    shutil.copytree(host, tmp_path / "gone")
    result = CliRunner().invoke(app, [*own, f"model.start_from={tmp_path / 'none'}"])
    assert result.exit_code != 0
    assert "no such file or folder" in result.output
