from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.folder import write_folder
from fakes.small_recipes import SMALL, narrow, network_of, words, write_sets
from typer.testing import CliRunner

from segatlas.build.installed_weights import installed_file
from segatlas.cli.main import app
from segatlas.config import recipes
from segatlas.encoders.spec import create_encoder
from segatlas.errors import WeightsError
from segatlas.models.host import encoder_of
from segatlas.recipe import Config
from segatlas.training import building
from segatlas.training.building import OF_WEIGHTS, build_parts
from segatlas.training.dry import dry_run

QUICK = ("_shapes", "_folder", "_pairs")
WHOLE = ("pspnet_ade20k", pytest.param("fcn_ade20k_resnest101", marks=pytest.mark.slow), "stdc_cityscapes")
"""Recipes run as they are too."""


def each_recipe() -> list[Any]:
    """Return the shipped recipes for a parameter: one an architecture is for every run, the others are slow tests."""
    shown: set[str] = set()
    found = []
    for name, file in sorted(recipes().items(), key=lambda item: (not item[0].endswith(QUICK), item[0])):
        architecture = file.parent.name
        found.append(pytest.param(name, marks=[pytest.mark.slow] if architecture in shown else []))
        shown.add(architecture)
    return found


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny dataset of each layout."""
    return write_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like torchvision's for a ResNet with a plain stem, of the smallest."""
    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("weights") / "resnet.pth"
    torch.save({**create_encoder("resnet18_w8").state_dict(), "fc.weight": torch.ones(10, 64)}, file)
    return file


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the hub is on this disk, and asking it for a file fails the test."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_: pytest.fail("the hub was asked"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("no_connection")
@pytest.mark.parametrize("name", each_recipe())
def test_every_shipped_recipe_takes_a_step_without_a_connection(name, roots, published):
    config, encoder = Config.load(name), encoder_of(network_of(name))
    has_weights, small = bool(config.model.encoder_weights), SMALL.get(str(encoder))
    further = narrow(name)
    if has_weights and small == "resnet18_w8":
        further.append(f"model.encoder_weights={published}")
    elif has_weights and small in ("hrnet_w8_small", "swin_w8", "vit_adapter_w32", "vit_w32"):  # timm has none
        further.append("model.encoder_weights=null")
    run = dry_run(Config.load(*words(name, roots, *further)))
    assert run.batch_shape[0] == 2
    assert run.output_shape[0] == 2
    of_queries = config.losses[0].output == "QueryMasks"
    if of_queries:
        assert run.output_shape[2] == len(run.classes) + 1
    else:
        assert run.output_shape[1] == len(run.classes) if config.task == "semantic" else run.output_shape[1] >= 1
    assert 0 < run.loss < (200 if of_queries else 30) + sum(term.weight for term in config.losses)
    missing = has_weights and small in (None, "resnest50", "vgg11_bn") and installed_file(str(encoder)) is None
    assert sum(notice.startswith(OF_WEIGHTS) for notice in run.notices) == missing
    assert {term.on.removeprefix("aux.") for term in config.losses if term.on != "logits"} <= {
        *run.aux_shapes, *(name.partition(".")[0] for name in run.aux_shapes)
    }  # fmt: skip


@pytest.mark.usefixtures("no_connection")
@pytest.mark.parametrize("name", WHOLE)
def test_the_command_line_runs_whole_networks_dry_and_leaves_nothing_in_the_folder_of_the_run(name, roots, tmp_path):
    arguments = words(name, roots, f"run.dir=work_dirs/{name}")
    result = CliRunner().invoke(app, ["train", *arguments, "--dry-run"])
    assert result.exit_code == 0, result.output
    told = " ".join(result.output.split())
    assert ("goes on with random ones" in told) == (Config.load(name).model.encoder_weights is not None)
    for line in ("network: ", "weights at the start: ", "input: mean [0.485, 0.456, 0.406]", "loss "):
        assert line in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_connection")
def test_the_notice_names_the_missing_weights_and_only_a_dry_run_goes_on_without(roots, monkeypatch):
    import huggingface_hub

    config = Config.load(*words("fcn_ade20k_mobilenet_v2", roots))
    (notice,) = build_parts(config, dry=True).notices
    assert notice.startswith("encoder weights: imagenet (timm/mobilenetv2_100.ra_in1k) cannot be fetched here")

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(WeightsError, match=r"no connection to the hub.*give a file instead: encoder_weights=PATH"):
        build_parts(config)


def test_a_dry_run_takes_imagenet_weights_that_are_on_this_disk(roots, published, monkeypatch):
    monkeypatch.setattr(building, "imagenet_on_disk", lambda net, source: ("timm/some", published))
    parts = build_parts(Config.load(*words("fcn_ade20k", roots, "model.encoder=resnet18_w8")), dry=True)
    assert parts.notices == ()
    assert torch.equal(parts.net.encoder.conv1.weight, torch.load(published)["conv1.weight"])


def test_a_file_given_by_hand_fills_the_encoder(roots, published):
    further = ("model.encoder=resnet18_w8", f"model.encoder_weights={published}")
    parts = build_parts(Config.load(*words("deeplabv3_ade20k", roots, *further)), dry=True)
    assert torch.equal(parts.net.encoder.conv1.weight, torch.load(published)["conv1.weight"])


def test_a_set_smaller_than_a_batch_gives_one_smaller_batch_as_in_training(roots, tmp_path):
    one = write_folder(tmp_path / "one", counts={"train": 1, "val": 1})
    further = (f"data.root={one}", "data.name=folder", "model.encoder=resnet18_w8", "model.encoder_weights=null")
    for name in ("unet_folder", "pspnet_cityscapes"):  # pyramid pooling: one value a channel in its batch norm
        run = dry_run(Config.load(*words(name, roots, *further)))
        assert (run.train_images, run.batch_shape) == (1, (1, 3, 64, 64))


def test_the_folder_of_a_run_may_be_given_beside_any_recipe():
    assert Config.load("pspnet_ade20k", "run.dir=work_dirs/pspnet_r50_ade20k").run.dir == "work_dirs/pspnet_r50_ade20k"


@pytest.mark.parametrize(
    ("overrides", "course"),
    [
        (
            ("train.steps=1", "train.epochs=null", "eval.split=test"),
            ("1 step (0.2 epochs) of 2 images", "scored at the end: test"),
        ),
        (("train.accumulate=2",), ("4 steps (2 epochs) of 4 images", "scored at the end: val")),
    ],
)
def test_a_dry_run_tells_the_length_what_is_learned_by_and_what_is_scored(recipe, overrides, course):
    facts = dry_run(recipe(*overrides))
    length, scored = course
    how = "adamw lr 0.01, poly; loss: cross_entropy + 0.5 dice"
    assert facts.course == (f"training: {length}, {how}", f"validations: val; {scored}")
    assert set(facts.course) <= set(facts.lines())
    assert length.startswith(f"{facts.steps} step")
