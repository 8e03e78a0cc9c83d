"""Networks that find objects are trained as others: resumed, fine-tuned, in bf16, stopped at a NaN."""

from __future__ import annotations

import csv

import pytest
import torch
from typer.testing import CliRunner

import resume_campaign
import segatlas
from segatlas.build.network import create_model
from segatlas.build.starting import start_from
from segatlas.checkpoint.card import Card
from segatlas.cli.main import app
from segatlas.data.collate import collate
from segatlas.data.stream import SampleStream
from segatlas.errors import ConfigError, TrainingError, WeightsError
from segatlas.models.condinst import ARCHITECTURE as CONDINST
from segatlas.models.mask_rcnn import ARCHITECTURE as MASK_RCNN
from segatlas.models.panoptic_fpn import ARCHITECTURE as PANOPTIC_FPN
from segatlas.models.pointrend_instance import ARCHITECTURE as POINTREND
from segatlas.recipe import Config
from segatlas.training import train
from segatlas.training.building import build_parts
from segatlas.training.freezing import freeze, training_mode
from segatlas.training.module import SegmentationModule

NETWORKS = {
    "mask_rcnn": (MASK_RCNN, "instance", ["two_stage"], "ap"),
    "panoptic_fpn": (PANOPTIC_FPN, "panoptic", ["two_stage", {"name": "semantic_branch", "weight": 0.5}], "pq"),
    "condinst": (CONDINST, "instance", ["dynamic_masks"], "ap"),
    "pointrend_instance": (POINTREND, "instance", ["two_stage", "mask_points"], "ap"),
}
each = pytest.mark.parametrize("name", NETWORKS)
SECONDS = {"pointrend_instance"}
"""Networks whose whole runs take seconds: mask_rcnn's go the same way."""
each_run = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SECONDS else []) for name in NETWORKS]
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing is written any more."""


@pytest.fixture
def words(shapes, tmp_path):
    """Return a maker of a small recipe of one of the networks, as a mapping; a run goes to `tmp_path / run`."""

    def make(name: str, run: str = "run", **model: object) -> dict[str, object]:
        record, task, losses, metric = NETWORKS[name]
        return {
            "seed": 7,
            "task": task,
            "run": {"dir": str(tmp_path / run), "root": str(tmp_path / "runs")},
            "model": {"name": name, **{key: list(v) if isinstance(v, tuple) else v for key, v in record.tiny.items()},
                      **model},
            "data": {"name": "shapes", "root": str(shapes), "store": "off"},
            "transforms": {"scale": [0.8, 1.25], "crop": [32, 48]},
            "losses": losses,
            "train": {"epochs": 2, "batch": 2, "lr": 1e-3, "device": "cpu", "threads": 1, "metric": metric},
            "eval": {"boundary": False},
            "log": {"every": 1, "tensorboard": False, "samples": 0},
        }  # fmt: skip

    return make


@each_run
def test_a_run_killed_in_its_second_epoch_ends_with_the_weights_of_one_that_was_not(words, monkeypatch, name):
    monkeypatch.setattr("segatlas.training.course.finish_run", lambda *args: None)
    assert Config.load(words(name)).data.workers == 1  # as users have it: drawn boxes follow from step and seed alone
    whole = train(Config.load(words(name, "whole")), quiet=True).dir
    assert torch.load(whole / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 10
    original, cut = SegmentationModule.training_step, whole.parent / "cut"

    def training_step(self, batch, batch_index):
        if self.global_step == 7:
            raise Killed
        return original(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", training_step)
        with pytest.raises(Killed):
            train(Config.load(words(name, "cut"), "train.checkpoint_every=1"), quiet=True)
    train(Config.load(cut / "config.yaml"), resume=cut, quiet=True)
    assert resume_campaign.differences(whole, cut) == []


@each_run
def test_bf16_trains_and_the_metric_that_was_asked_for_decides(words, monkeypatch, name):
    monkeypatch.setattr("segatlas.training.course.finish_run", lambda *args: None)
    metric = NETWORKS[name][3]
    run = train(Config.load(words(name), "train.precision=bf16", "train.epochs=1"), quiet=True)
    rows = list(csv.DictReader((run.dir / "metrics.csv").open()))
    metric = f"val_{metric}"
    assert rows[-1][metric] != ""
    state = torch.load(run.dir / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(tensor.isfinite().all() for tensor in state.values() if tensor.is_floating_point())
    assert all(tensor.dtype != torch.bfloat16 for tensor in state.values())


@each_run
def test_a_loss_of_nan_stops_with_the_files_named(words, monkeypatch, name):
    original = SegmentationModule.training_step

    def training_step(self, batch, batch_index):
        if self.global_step == 1:
            image = batch.inputs.image * float("nan")
            batch = batch._replace(inputs=batch.inputs._replace(image=image))
        return original(self, batch, batch_index)

    monkeypatch.setattr(SegmentationModule, "training_step", training_step)
    with pytest.raises(TrainingError, match=r"the loss became nan at step 1 on: 00\d\d, 00\d\d"):
        train(Config.load(words(name)), quiet=True)


@each
def test_every_parameter_gets_a_gradient_in_the_first_step(words, name):
    parts = build_parts(Config.load(words(name)))
    net = training_mode(parts.net, Config.load(words(name)).train)
    batch = collate([SampleStream(parts.train, parts.pipeline, 7)[(0, index)] for index in range(4)])
    loss, _ = parts.criterion(net(batch.inputs, batch.targets, batch.sizes), batch.targets)
    loss.backward()
    without = [key for key, one in net.named_parameters() if one.grad is None or not one.grad.abs().sum() > 0]
    ours = [key for key in without if not key.startswith(("head.scales", "coarser"))]  # of levels beyond small images
    assert ours == []


@each
def test_whole_images_of_different_sizes_share_a_batch(words, name):
    config = Config.load(words(name), "transforms.crop=null", "transforms.scale=[0.5, 2.0]")
    parts = build_parts(config)
    batch = collate([SampleStream(parts.train, parts.pipeline, 7)[(0, index)] for index in range(4)])
    assert len(set(batch.sizes)) > 1
    net = training_mode(parts.net, config.train)
    loss, _ = parts.criterion(net(batch.inputs, batch.targets, batch.sizes), batch.targets)
    loss.backward()
    assert loss.isfinite()
    assert all(one.grad is None or one.grad.isfinite().all() for one in net.parameters())


# ---- fine-tuning
FIELDS = {
    "mask_rcnn": ({"num_classes": 7}, {"num_classes": 3}),
    "condinst": ({"num_classes": 7}, {"num_classes": 3}),
    "pointrend_instance": ({"num_classes": 7}, {"num_classes": 3}),
    "panoptic_fpn": ({"num_classes": 7, "stuff": 3}, {"num_classes": 6, "stuff": 1, "stuff_classes": (0,)}),
}


@each
def test_a_network_of_other_classes_is_begun_with_and_only_what_follows_from_classes_stays_new(tmp_path, name):
    tiny = NETWORKS[name][0].tiny
    earlier, later = (create_model(name, **{**tiny, **fields}) for fields in FIELDS[name])
    for parameter in earlier.parameters():
        parameter.data.add_(0.25)
    segatlas.save_pretrained(earlier, tmp_path / "net", classes=[f"c{index}" for index in range(7)])
    report = start_from(later, tmp_path / "net")
    heads = {"stages.box_head.classifier", "stages.box_head.deltas", "stages.mask_head.classifier"}
    expected = {"head.classifier"} if name == "condinst" else heads
    expected = expected | ({"classifier"} if name == "panoptic_fpn" else set())
    if name == "pointrend_instance":  # every layer of its points sees the coarse logits of all classes
        expected |= {"stages.point_head.classifier", *(f"stages.point_head.layers.{index}" for index in range(3))}
    assert {key.rpartition(".")[0] for key in report.replaced} == expected
    theirs, ours = earlier.state_dict(), later.state_dict()
    assert all(torch.equal(theirs[key], ours[key]) for key in report.loaded)


@each
def test_a_width_that_differs_is_refused_by_its_name(tmp_path, name):
    tiny = NETWORKS[name][0].tiny
    earlier, later = (create_model(name, **{**tiny, "num_classes": 4, "mask_channels": width}) for width in (8, 16))
    segatlas.save_pretrained(earlier, tmp_path / "net", classes=list("abcd"))
    with pytest.raises(WeightsError, match="mask_channels = 8 in the file, 16 here"):
        start_from(later, tmp_path / "net")


def test_which_classes_are_stuff_says_the_dataset(words):
    net = build_parts(Config.load(words("panoptic_fpn"))).net
    assert net.config.stuff_classes == (0,)
    assert net.config.stuff == 1
    for key, value in (("stuff", 2), ("stuff_classes", [1])):
        with pytest.raises(ConfigError, match=f"model.{key}") as caught:
            build_parts(Config.load(words("panoptic_fpn", **{key: value})))
        assert "the dataset has 1 classes of stuff: ground; leave the key out" in str(caught.value)


def test_the_card_of_a_trained_network_says_where_its_class_of_all_things_is(words):
    card: Card = build_parts(Config.load(words("panoptic_fpn", other="last"))).card
    assert card.objects.other == "last"


# ---- what stays frozen
def test_frozen_stages_keep_weights_and_statistics_and_frozen_norms_keep_statistics_alone(words):
    config = Config.load(words("mask_rcnn"), "train.freeze_stages=2", "train.freeze_norms=true")
    parts = build_parts(config)
    net = training_mode(parts.net, config.train)
    frozen = {name for name, parameter in net.encoder.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in net.encoder.named_parameters() if name.startswith(("conv1", "bn1", "layer1"))}
    before = {name: one.clone() for name, one in net.encoder.named_buffers()}
    net(torch.randn(2, 3, 32, 48))
    assert all(torch.equal(before[name], one) for name, one in net.encoder.named_buffers())
    assert net.encoder.layer2[0].bn1.weight.requires_grad


def test_more_frozen_stages_than_there_are_are_refused(words):
    config = Config.load(words("mask_rcnn"), "train.freeze_stages=6")
    with pytest.raises(ConfigError, match=r"train.freeze_stages.*the encoder has 5 stages"):
        build_parts(config)


def test_the_recipe_of_coco_freezes_what_mmdetection_freezes():
    settings = Config.load("mask_rcnn_coco").train
    net = create_model("mask_rcnn", **{**MASK_RCNN.tiny, "num_classes": 3})
    freeze(net, settings)
    training_mode(net, settings)
    stages = net.encoder.stages()
    assert [any(p.requires_grad for part in stage for p in part.parameters()) for stage in stages] == [
        False, False, True, True, True,
    ]  # fmt: skip
    assert not any(module.training for module in net.encoder.modules() if isinstance(module, torch.nn.BatchNorm2d))


def test_a_resume_with_other_frozen_stages_is_refused(words, monkeypatch):
    monkeypatch.setattr("segatlas.training.course.finish_run", lambda *args: None)
    run = train(Config.load(words("mask_rcnn"), "train.epochs=1"), quiet=True).dir
    result = CliRunner().invoke(app, ["train", "--resume", str(run), "train.freeze_stages=1", "train.epochs=2"])
    assert result.exit_code == 2
    assert "train.freeze_stages" in result.stderr
