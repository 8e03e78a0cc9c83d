"""`segatlas predict` of networks of boxes and masks: what is asked of objects, ids, and each task that follows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.cli.main import app
from segatlas.config.objects import ObjectRule
from segatlas.errors import TaskError
from segatlas.inference import load
from segatlas.models import load_architecture
from segatlas.postprocess.selecting import suppressed

CLASSES = tuple("abcdefghijkl")
SIZE = (64, 96)
NETWORKS = ("mask_rcnn", "panoptic_fpn")


@pytest.fixture(scope="module", params=NETWORKS)
def model(request, tmp_path_factory) -> Path:
    """A tiny network with random weights whose own bounds let every detection through, up to eight of an image."""
    torch.manual_seed(0)
    own = {"stuff": 2} if request.param == "panoptic_fpn" else {}
    fields = {**load_architecture(request.param).tiny, **own, "score_threshold": 0.0}
    net = create_model(request.param, num_classes=len(CLASSES), **fields)
    folder = tmp_path_factory.mktemp(request.param) / "model"
    things = [index < 10 for index in range(len(CLASSES))] if own else None
    facts = {"things": things, "objects": ObjectRule(things_score=0.0, stuff_area=1)} if things else {}
    save_pretrained(net, folder, classes=list(CLASSES), **facts)
    return folder


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("image") / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)).save(path)
    return path


def predict(model: Path, image: Path, out: Path, *options: object) -> Result:
    words = ["predict", model, image, "--out", out, "--save", "json", *options]
    return CliRunner().invoke(app, [str(word) for word in words])


def objects(model: Path, image: Path, out: Path, *options: object) -> list[tuple[float, int, tuple[float, ...]]]:
    """Return score, class and box of the objects of an image, from the file that lists them."""
    result = predict(model, image, out, *options)
    assert result.exit_code == 0, result.output
    record = json.loads((out / "noise.json").read_text())
    if "objects" in record:
        return [(one["score"], one["index"], tuple(one["box"])) for one in record["objects"]]
    words = {"--score": float, "--top": int, "--overlap": float}
    asked = {name.strip("-"): kind(options[options.index(name) + 1]) for name, kind in words.items() if name in options}
    asked |= {"class_agnostic": True} if "--class-agnostic" in options else {}
    found = load(model, objects=asked).predict(str(image)).instances
    return [(one.score, one.class_index, tuple(one.box)) for one in found]


def test_score_top_overlap_and_classes_left_aside_decide_which_objects_are_written(model, image, tmp_path):
    free = ("--score", 0, "--overlap", 1)
    everything = objects(model, image, tmp_path / "all", *free, "--top", 1000)
    assert len(everything) > 100  # neither eight, as the network's own bound is, nor a hundred
    scores = [score for score, *_ in everything]
    assert scores == sorted(scores, reverse=True)
    best = objects(model, image, tmp_path / "top", *free, "--top", 3)
    assert [one[0] for one in best] == pytest.approx(scores[:3], abs=1e-5)
    middle = scores[len(scores) // 2]
    surer = objects(model, image, tmp_path / "score", "--overlap", 1, "--top", 1000, "--score", middle)
    assert 0 < len(surer) < len(everything)
    assert min(one[0] for one in surer) >= middle
    for name, options in (("overlap", ("--overlap", 0.3)), ("agnostic", ("--overlap", 0.3, "--class-agnostic"))):
        kept = objects(model, image, tmp_path / name, "--score", 0, "--top", 1000, *options)
        kinds = np.array([0 if name == "agnostic" else kind for _, kind, _ in kept])
        boxes = np.array([box for *_, box in kept])
        assert len(kept) < len(everything)
        assert suppressed(boxes, kinds, 0.31) == list(range(len(kept)))


@pytest.mark.parametrize("options", [("--score", 2), ("--overlap", -1), ("--top", 0)])
def test_what_no_object_can_have_is_wrong_usage(model, image, tmp_path, options):
    assert predict(model, image, tmp_path / "out", *options).exit_code == 2
    assert not (tmp_path / "out/noise.json").exists()


def test_each_network_gives_the_tasks_that_follow_from_it_and_ids_are_unique(model, image, tmp_path):
    result = load(model, objects={"score": 0.0, "top": 50}).predict(str(image))
    assert len(result.instances) > 8
    if model.parent.name.startswith("mask_rcnn"):
        for name in ("semantic", "panoptic"):
            with pytest.raises(TaskError, match=r"it can give: instances$"):
                getattr(result, name)
        return
    assert result.semantic.shape == SIZE
    assert predict(model, image, tmp_path, "--score", 0, "--save", "json,panoptic,mask").exit_code == 0
    record = json.loads((tmp_path / "noise.json").read_text())
    ids = [one["id"] for one in record["segments_info"]]
    drawn = np.asarray(Image.open(tmp_path / "noise_panoptic.png")).astype(np.int64) @ [1, 256, 65536]
    assert len(set(ids)) == len(ids) > 2
    assert sorted(set(np.unique(drawn).tolist()) - {0}) == sorted(ids)
    assert [int((drawn == one["id"]).sum()) for one in record["segments_info"]] == [
        one["area"] for one in record["segments_info"]
    ]
