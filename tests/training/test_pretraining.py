"""Classes of whole images are learned, and another training begins with what that leaves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from fakes.camvid import write_camvid
from fakes.image_classes import CLASSES, write_image_classes
from test_resume import Killed, kill_at
from typer.testing import CliRunner

from segatlas.build.network import create_model
from segatlas.build.starting import start_from
from segatlas.checkpoint.model_folder import read_weights
from segatlas.checkpoint.reading import read_torch
from segatlas.cli.main import app
from segatlas.config.schema import PretrainConfig
from segatlas.data.image_classes import open_image_classes
from segatlas.errors import ConfigError, DataError, UsageError, WeightsError
from segatlas.inference import load
from segatlas.recipe import Config
from segatlas.training import dry_run, train
from segatlas.training.pretraining import ImageClassifier, ImageCrossEntropy, ValImages, build_parts, middle

SMALL = (
    *("model.width=4", "model.channels=8", "pretrain.hidden=8", "pretrain.resize=68", "transforms.resize=short:68"),
    *("transforms.scale=[0.95,1.3]", "transforms.crop=[64,64]", "data.workers=0", "train.batch=6", "train.threads=1"),
    *("train.device=cpu", "train.schedule.warmup=1", "log.tensorboard=false"),
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_image_classes(tmp_path_factory.mktemp("classes"))


def words(images, place, *further):
    return [f"data.root={images}", *SMALL, f"run.dir={place}", *further]


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    place = tmp_path_factory.mktemp("run") / "pre"
    result = CliRunner().invoke(app, ["train", "sanet_imagenet", *words(images, place, "train.epochs=2")])
    assert result.exit_code == 0, result.output
    return place


def test_a_run_validates_top_1_and_top_5_and_keeps_the_network_without_classifier_and_head(run):
    facts = json.loads((run / "eval.json").read_text())
    assert facts["summary"].keys() == {"top1", "top5", "images", "classes"}
    assert facts["summary"]["top5"] == 1
    assert "highest score" in facts["definitions"]["top1"]
    header = (run / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"val_top1", "val_top5"} <= set(header)
    assert (run / "report.html").stat().st_size > 10_000
    assert not (run / "model").exists()
    card, tensors = read_weights(run / "pretrained.safetensors")
    assert card is not None
    assert (card.architecture, card.classes, card.metric["split"]) == ("sanet", CLASSES, "val")
    net = create_model("sanet_s", width=4, channels=8, num_classes=3)
    assert tensors.keys() == {name for name in net.state_dict() if not name.startswith("classifier")}
    best = read_torch(run / "checkpoints" / "best.ckpt")["state_dict"]
    assert all(torch.equal(tensor, best[f"net.net.{name}"]) for name, tensor in tensors.items())
    log = (run / "log.txt").read_text()
    heads = [name.removeprefix("net.") for name in best if name.startswith("net.head.")]
    assert heads
    assert f"not kept, because it says classes of images: {', '.join(heads)}" in log


def test_a_segmentation_training_begins_with_it_and_says_what_is_new(run, tmp_path):
    root = write_camvid(tmp_path / "camvid")
    small = ["model.width=4", "model.channels=8", "transforms.crop=[64,64]", "train.batch=2", "train.steps=1"]
    place = tmp_path / "run"
    given = [f"data.root={root}", f"model.start_from={run}", f"run.dir={place}", "train.lr=1e-12", *small]
    given += ["data.workers=0", "data.store=off", "train.device=cpu", "train.schedule.warmup=0", "train.val_every=1"]
    result = CliRunner().invoke(app, ["train", "sanet_camvid_small", *given])
    assert result.exit_code == 0, result.output
    _, tensors = read_weights(run / "pretrained.safetensors")
    trained = read_torch(place / "checkpoints" / "last.ckpt")["state_dict"]
    for name, tensor in tensors.items():  # a rate of 1e-12 hardly moves a weight, statistics move
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            torch.testing.assert_close(trained[f"net.{name}"], tensor, rtol=1e-6, atol=1e-8, msg=name)
    new = [name.removeprefix("net.") for name in trained if name.removeprefix("net.") not in tensors]
    assert {name.split(".")[0] for name in new} == {"classifier", "aux_heads"}
    log = (place / "log.txt").read_text()
    assert f"{len(tensors)} tensors taken over" in log
    (line,) = [line for line in log.splitlines() if "new, because no such layers are there: " in line]
    assert set(line.split(": ", 1)[1].split(", ")) >= {"classifier.weight", "classifier.bias"}
    assert all(name in line for name in new)


def test_another_architecture_other_widths_and_prediction_are_refused(run):
    with pytest.raises(UsageError, match="holds a sanet"):
        start_from(create_model("unet", width=4, num_classes=2), run)
    with pytest.raises(WeightsError, match=r"width = 4 in the file, 8 here"):
        start_from(create_model("sanet_s", width=8, channels=8, num_classes=2), run)
    with pytest.raises(WeightsError, match="a pre-training on classes of whole images, which leaves no model"):
        load(run)


@pytest.mark.parametrize("step", [2, 4])
def test_a_run_killed_anywhere_and_resumed_ends_with_the_same_weights(images, run, step, tmp_path, monkeypatch):
    place = tmp_path / "cut"
    with monkeypatch.context() as patch:
        kill_at(patch, step)
        with pytest.raises(Killed):
            train(
                Config.load("sanet_imagenet", *words(images, place, "train.epochs=2", "train.checkpoint_every=1")),
                quiet=True,
            )
    train(Config.load(place / "config.yaml"), resume=place, quiet=True)
    whole, cut = (read_torch(folder / "checkpoints" / "last.ckpt") for folder in (run, place))
    assert whole["global_step"] == cut["global_step"] == 6
    for name, tensor in whole["state_dict"].items():
        assert torch.equal(cut["state_dict"][name], tensor), name


def test_the_class_of_an_image_is_that_of_the_mean_of_its_map():
    torch.manual_seed(0)
    net = create_model("fcn", encoder="resnet18_w8", num_classes=5).eval()
    kernel, bias = net.classifier.weight.detach().clone(), net.classifier.bias.detach().clone()
    x = torch.randn(2, 3, 64, 96)
    expected = net(x).logits.mean((2, 3))
    whole = ImageClassifier(net, 5, PretrainConfig()).eval()
    whole.head[0].weight.data, whole.head[0].bias.data = kernel.flatten(1), bias
    torch.testing.assert_close(whole(x), expected)
    assert whole.encoder is net.encoder


def test_the_loss_is_cross_entropy_with_its_label_smoothing():
    scores, classes = torch.tensor([[2.0, 0, 0, 1]]), torch.tensor([0])
    total, terms = ImageCrossEntropy(0.2)(scores, classes)
    logs = torch.log_softmax(scores, 1)[0]
    assert total == pytest.approx(float(-(0.8 * logs[0] + 0.2 * logs.mean())))
    assert terms.keys() == {"cross_entropy"}


def test_validation_looks_at_the_middle_of_an_image_of_the_asked_size(images):
    config = Config.load("sanet_imagenet", *words(images, "x"))
    parts = build_parts(config)
    _, val = open_image_classes(images)
    view = ValImages(val, parts.pipeline, config, 1, 2)
    assert len(view) == 5
    prepared, number = view[0]
    assert prepared.image.shape == (64, 64, 3)
    assert number == val.class_of(1)
    assert view[4] is None  # nine images for two processes
    columns = np.arange(9).reshape(1, 9, 1)
    assert middle(np.repeat(columns, 5, 0), (3, 4))[0, :, 0].tolist() == [2, 3, 4, 5]


def test_a_dry_run_takes_one_step(images):
    facts = dry_run(Config.load("sanet_imagenet", *words(images, "x")))
    assert (facts.label_name, facts.label_shape) == ("classes of images", (6,))
    assert (facts.output_name, facts.output_shape) == ("scores", (6, 3))


def test_an_image_that_cannot_be_read_stops_the_run_with_its_name(images, tmp_path, monkeypatch):
    root = write_image_classes(tmp_path / "images", train=20, val=2)
    (root / "train" / "rows" / "005.png").write_bytes(b"cut short")
    monkeypatch.setattr("segatlas.data.image_classes.LOOKED_AT", 2)
    with pytest.raises(DataError, match=r"train/rows/005\.png"):
        train(Config.load("sanet_imagenet", *words(root, tmp_path / "run", "train.epochs=1")), quiet=True)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("losses=[dice]", "losses.*have no meaning where whole images have classes"),
        ("task=instance", "task"),
        ("eval.split=test", "eval.*no meaning"),
        ("data.name=shapes", r"data\.name.*no meaning"),
        ("transforms.crop=null", r"transforms\.crop.*images of one size are needed"),
        ("pretrain.resize=32", r"pretrain\.resize.*the crop of 64x64 is larger"),
        ("train.batch=1", r"train\.batch.*two images a step"),
        ("train.metric=miou", "expected a score of a pre-training: top1, top5"),
        ("pretrain.hiden=3", "hidden"),
    ],
)
def test_keys_without_meaning_and_values_that_contradict_are_told(word, message, images):
    with pytest.raises(ConfigError, match=message):
        Config.load("sanet_imagenet", *words(images, "x", word))


def test_a_network_that_gives_no_class_map_and_one_with_auxiliary_heads_are_told(images):
    with pytest.raises(ConfigError, match="center gives no map of one image"):
        Config.load({"model": {"name": "center"}, "pretrain": {}, "transforms": {"crop": [64, 64]}})
    with pytest.raises(ConfigError, match="auxiliary heads learn nothing"):
        build_parts(Config.load("sanet_imagenet", *words(images, "x", "model.aux=true")))
