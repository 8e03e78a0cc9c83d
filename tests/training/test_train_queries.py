"""Networks of queries are trained for all three tasks as others are: resumed, stopped at a NaN, predicted with."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import resume_campaign
import segatlas
from segatlas.build.network import create_model
from segatlas.build.saving import make_card
from segatlas.build.starting import start_from
from segatlas.cli.main import app
from segatlas.data.collate import collate
from segatlas.data.stream import SampleStream
from segatlas.errors import TaskError, TrainingError, UsageError
from segatlas.inference import Predictor
from segatlas.models import load_architecture
from segatlas.models.oneformer import TASK_WORDS
from segatlas.ops import class_map
from segatlas.recipe import Config
from segatlas.training import train
from segatlas.training.building import build_parts
from segatlas.training.freezing import encoder_norms, freeze, training_mode
from segatlas.training.module import SegmentationModule
from segatlas.training.optim import parameter_groups

POINTS = {"name": "query_points", "points": 64}
NETWORKS = {"mask2former": POINTS, "maskformer": "query_maps", "oneformer": POINTS, "eomt": POINTS}
METRICS = {"panoptic": "pq", "instance": "ap", "semantic": "miou"}


@pytest.fixture
def words(shapes, tmp_path):
    """Return a maker of a small recipe of a network and a task, as a mapping; a run goes to `tmp_path / run`."""

    def make(name: str, task: str = "panoptic", run: str = "run") -> dict[str, object]:
        tiny = {key: list(v) if isinstance(v, tuple) else v for key, v in load_architecture(name).tiny.items()}
        tiny |= {"asked_for": task} if name == "oneformer" else {}
        return {
            "seed": 7,
            "task": task,
            "run": {"dir": str(tmp_path / run), "root": str(tmp_path / "runs")},
            "model": {"name": name, **tiny},
            "data": {"name": "shapes", "root": str(shapes), "store": "off"},
            "transforms": {"scale": [0.8, 1.25], "crop": [32, 48]},
            "losses": [NETWORKS[name]],
            "train": {"epochs": 2, "batch": 2, "lr": 1e-3, "device": "cpu", "threads": 1, "metric": METRICS[task]},
            "eval": {"boundary": False},
            "log": {"every": 1, "tensorboard": False, "samples": 0},
        }

    return make


@pytest.mark.parametrize("name", ["mask2former", pytest.param("maskformer", marks=pytest.mark.slow)])
def test_a_run_killed_in_its_second_epoch_ends_with_the_weights_of_one_that_was_not(words, monkeypatch, name):
    monkeypatch.setattr("segatlas.training.course.finish_run", lambda *args: None)
    whole = train(Config.load(words(name, run="whole")), quiet=True).dir
    original, cut = SegmentationModule.training_step, whole.parent / "cut"

    class Killed(BaseException):
        """Stands for SIGKILL: nothing is written any more."""

    def training_step(self, batch, batch_index):
        if self.global_step == 7:
            raise Killed
        return original(self, batch, batch_index)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationModule, "training_step", training_step)
        with pytest.raises(Killed):
            train(Config.load(words(name, run="cut"), "train.checkpoint_every=1"), quiet=True)
    train(Config.load(cut / "config.yaml"), resume=cut, quiet=True)
    assert resume_campaign.differences(whole, cut) == []


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("task", METRICS)
def test_whole_images_of_different_sizes_share_a_batch_of_each_task(words, name, task):
    config = Config.load(words(name, task), "transforms.crop=null", "transforms.scale=[0.5, 2.0]")
    parts = build_parts(config)
    batch = collate([SampleStream(parts.train, parts.pipeline, 7)[(0, index)] for index in range(3)])
    assert len(set(batch.sizes)) > 1
    net = training_mode(parts.net, config.train)
    loss, terms = parts.criterion(net(batch.inputs), batch.targets)
    loss.backward()
    assert set(terms) == {"class", "mask", "dice"}
    learned = [(key, one) for key, one in net.named_parameters() if one.requires_grad]
    without = [key for key, one in learned if one.grad is None or not one.grad.isfinite().all()]
    assert without == []


def test_numbers_that_are_none_stop_with_the_file_named(words, monkeypatch):
    original = SegmentationModule.training_step

    def training_step(self, batch, batch_index):
        if self.global_step == 1:
            image = batch.inputs.image.clone()
            image[1] = float("nan")  # which norms over the batch spread
            batch = batch._replace(inputs=batch.inputs._replace(image=image))
            told.extend(batch.keys)
        return original(self, batch, batch_index)

    told: list[str] = []
    monkeypatch.setattr(SegmentationModule, "training_step", training_step)
    with pytest.raises(
        TrainingError, match=r"costs of matching .* are not finite at step 1 on: 00\d\d, 00\d\d\. Try"
    ) as caught:
        train(Config.load(words("mask2former")), quiet=True)
    assert set(told) == set(str(caught.value).partition("on: ")[2].partition(".")[0].split(", "))


def test_a_trained_network_predicts_evaluates_and_does_what_is_asked_of_objects(words, shapes, tmp_path):
    run = train(Config.load(words("mask2former"), "train.epochs=1"), quiet=True)
    image = sorted((shapes / "val" / "images").iterdir())[0]
    predictor = segatlas.load(run.best, device="cpu", objects={"score": 0.0, "top": 4})
    result = predictor.predict(image)
    assert result.given == ("semantic", "instances", "panoptic")
    assert len(result.instances) <= 4
    assert result.semantic.shape == result.panoptic.ids.shape == result.size
    asked = ["--score", "0.01", "--top", "3", "--overlap", "0.5", "--class-agnostic", "--save", "json"]
    words_ = ["predict", run.best, image, "--out", tmp_path / "out", *asked, "--device", "cpu"]
    done = CliRunner().invoke(app, [str(word) for word in words_])
    assert done.exit_code == 0, done.output
    listed = json.loads(next((tmp_path / "out").rglob("*.json")).read_text())
    assert "segments" in json.dumps(listed)


def test_a_oneformer_learns_the_task_of_its_token_and_gives_the_objects_of_it(words, shapes, monkeypatch):
    monkeypatch.setattr("segatlas.training.course.finish_run", lambda *args: None)
    run = train(Config.load(words("oneformer", "instance"), "train.epochs=null", "train.steps=2"), quiet=True)
    predictor = segatlas.load(run.dir / "model", device="cpu", objects={"score": 0.0})
    assert predictor.card.config["asked_for"] == predictor.card.task == "instance"
    assert predictor.model.words == TASK_WORDS["instance"]
    result = predictor.predict(sorted((shapes / "val" / "images").iterdir())[0])
    assert result.given == ("instances",)
    assert result.instances
    fields = {**load_architecture("oneformer").tiny, "num_classes": len(predictor.card.classes)}
    report = start_from(create_model("oneformer", **fields, asked_for="panoptic"), run.dir / "model")
    assert not report.replaced  # its token alone is another


def test_mask2former_on_coco_freezes_batch_norms_altogether_as_mmdetection_does():
    settings = Config.load("mask2former_coco").train
    net = create_model("mask2former", num_classes=3, **load_architecture("mask2former").tiny)
    freeze(net, settings)
    norms = encoder_norms(training_mode(net, settings))
    assert norms
    assert not any(norm.training or norm.weight.requires_grad or norm.bias.requires_grad for norm in norms)
    fixed = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    assert len(fixed) == 2 * len(norms)
    swin = Config.load("mask2former_swin_ade20k").train
    assert (swin.freeze_norms, swin.freeze_norm_weights) == (False, False)


@pytest.mark.parametrize("recipe", ["oneformer_ade20k", "oneformer_coco"])
def test_of_oneformer_what_its_authors_decay_decays(recipe):
    settings = Config.load(recipe).train
    net = create_model("oneformer", num_classes=3, **load_architecture("oneformer").tiny)
    groups = parameter_groups(net, settings.optimizer, settings.lr)
    decays = {id(parameter) for group in groups for parameter in group["params"] if group["weight_decay"]}
    embeddings = {"query_positions", "level_embedding"}  # of the pixel decoder it is none, and decays
    for place, module in net.named_modules():
        is_norm = isinstance(module, (torch.nn.LayerNorm, torch.nn.GroupNorm))
        for name, parameter in module.named_parameters(recurse=False):
            spared = is_norm or name == "relative_position_bias_table" or (not place and name in embeddings)
            assert (id(parameter) in decays) is not spared, f"{place}.{name}"


def semantic_predictor(**options) -> Predictor:
    torch.manual_seed(0)
    net = segatlas.create_model("maskformer", num_classes=3, **load_architecture("maskformer").tiny)
    return Predictor(net, make_card(net, classes=("a", "b", "c"), task="semantic"), device="cpu", **options)


def test_scores_of_class_maps_give_their_labels_and_windows_join_them():
    plain = semantic_predictor()
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    result = plain.predict(image)
    prepared = torch.from_numpy((image / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).permute(2, 0, 1)
    scores = plain.scores(prepared[None].float())
    assert scores.shape == (1, 3, 64, 96)
    assert (class_map(scores, (64, 96))[0].numpy() == result.semantic).mean() > 0.999
    windowed = semantic_predictor(window=64, overlap=0.0).predict(image)
    assert windowed.semantic.shape == (64, 96)
    left = plain.predict(image[:, :64])
    assert (windowed.semantic[:, :32] == left.semantic[:, :32]).all()


def test_windows_find_objects_and_views_are_refused_for_all_queries():
    with pytest.raises(UsageError, match="tta: test-time augmentation is for class maps; maskformer gives QueryMasks"):
        semantic_predictor(tta="flips")
    net = segatlas.create_model("maskformer", num_classes=3, **load_architecture("maskformer").tiny)
    card = make_card(net, classes=("a", "b", "c"), task="instance")
    image = np.random.default_rng(0).integers(0, 256, (64, 128, 3)).astype(np.uint8)
    found = Predictor(net, card, device="cpu", window=64).predict(image).instances
    assert found
    assert {one.bitmap().shape for one in found} == {(64, 128)}
    with pytest.raises(TaskError, match="0 classes are said to be things or stuff"):
        Predictor(net, make_card(net, classes=("a", "b", "c"), task="panoptic"), device="cpu").predict(
            np.zeros((9, 9, 3), np.uint8)
        )
