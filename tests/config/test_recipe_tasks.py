"""`task:`, `train.metric` and `losses` against the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.errors import ConfigError, Problem
from segatlas.losses import CrossEntropy, losses_for
from segatlas.models import ARCHITECTURES, ArchitectureEntry, list_models
from segatlas.models.needs import Needs
from segatlas.recipe import Config
from segatlas.tasks import TASKS


@pytest.fixture
def network_for_objects(monkeypatch: pytest.MonkeyPatch) -> str:
    needs = Needs(targets=("InstancesTarget",))
    entry = ArchitectureEntry("boxer", "nowhere", "Boxer", ("instance",), "CentersAndOffsets", "", needs=needs)
    monkeypatch.setitem(ARCHITECTURES, "boxer", entry)
    return "boxer"


def problems_of(path: Path, text: str) -> list[Problem]:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Config.load(path)
    return caught.value.problems


def test_a_recipe_that_states_nothing_is_for_the_first_task_and_score_of_its_network():
    cfg = Config.load({"model": {"name": "unet"}})
    assert (cfg.task, cfg.train.metric) == ("semantic", "miou")
    assert [term.name for term in cfg.losses] == ["cross_entropy"]


def test_a_network_for_objects_decides_task_and_score(network_for_objects: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("segatlas.recipe.losses_for", lambda output: {"cross_entropy": CrossEntropy})
    monkeypatch.setattr(Config, "further_rules", ())
    monkeypatch.setattr("segatlas.config.rules.RULES", ())
    monkeypatch.setitem(TASKS, "instance", replace(TASKS["instance"], metrics=("object_size", "confusion")))
    cfg = Config.load({"model": {"name": network_for_objects}})
    assert (cfg.task, cfg.train.metric) == ("instance", "miou")


def test_a_task_that_the_network_is_not_for_is_told_with_its_line(tmp_path: Path, network_for_objects: str):
    found = problems_of(tmp_path / "a.yaml", f"model:\n  name: {network_for_objects}\ntask: semantic\n")
    told = next(problem for problem in found if problem.key == "task")
    assert (told.line, told.got) == (3, '"semantic"')
    assert told.message.startswith("boxer is for instance; networks for semantic: unet, ")


def test_a_loss_for_another_output_is_told_with_its_line(tmp_path: Path, network_for_objects: str):
    found = problems_of(tmp_path / "a.yaml", f"model:\n  name: {network_for_objects}\nlosses:\n- dice\n")
    told = next(problem for problem in found if problem.key.startswith("losses"))
    assert (told.key, told.line) == ("losses.0.name", 4)
    assert told.message.startswith("a loss on SemanticLogits, and boxer gives CentersAndOffsets - expected ")


@pytest.mark.parametrize(
    ("network", "losses"),
    [
        ("mask_rcnn", ["two_stage"]),
        ("panoptic_fpn", ["two_stage", "semantic_branch"]),
        ("pointrend_instance", ["two_stage", "mask_points"]),
        ("condinst", ["dynamic_masks"]),
        ("center", ["centers_offsets"]),
        ("panoptic_deeplab", ["hard_pixels", "center_mse", "offset_l1"]),
    ],
)
def test_networks_of_one_output_have_their_own_losses(tmp_path: Path, network: str, losses: list[str]):
    assert [term.name for term in Config.load({"model": {"name": network}}).losses] == losses
    others = {"condinst": "two_stage", "center": "hard_pixels", "panoptic_deeplab": "centers_offsets"}
    wrong = others.get(network, "dynamic_masks")
    (told,) = problems_of(tmp_path / "a.yaml", f"model:\n  name: {network}\nlosses:\n- {wrong}\n")
    assert (told.key, told.line) == ("losses.0.name", 4)
    assert told.message.startswith(f"{network} does not give what it takes, ")
    further = ["box_masks"] if network in ("mask_rcnn", "condinst") else []
    assert told.message.endswith(f"expected {', '.join([*losses, *further])}")


def test_a_task_that_is_not_the_network_s_is_told_with_networks_for_it(tmp_path: Path):
    assert list_models(task="panoptic")
    (told,) = problems_of(tmp_path / "a.yaml", "model:\n  name: unet\ntask: panoptic\n")
    assert (told.key, told.line) == ("task", 3)
    assert told.message.startswith("unet is for semantic; ")
    assert "panoptic_fpn" in told.message


def test_a_network_that_is_told_what_to_give_must_be_told_the_task(tmp_path: Path):
    text = "model:\n  name: oneformer\n  asked_for: instance\ntask: panoptic\n"
    (told,) = problems_of(tmp_path / "a.yaml", text)
    assert (told.key, told.line) == ("model.asked_for", 3)
    assert told.message == "the network is asked for instance, and the task is panoptic; set it so"
    assert Config.load({"model": {"name": "oneformer_swin_t"}}).task == "panoptic"


def test_an_unknown_task_is_told_with_the_nearest_one(tmp_path: Path):
    (told,) = problems_of(tmp_path / "a.yaml", "task: semantics\n")
    assert (told.key, told.line) == ("task", 1)
    assert "did you mean 'semantic'" in told.message


def test_a_score_of_another_task_is_told_with_its_line(tmp_path: Path):
    (told,) = problems_of(tmp_path / "a.yaml", "train:\n  metric: instance_f1\n")
    assert (told.key, told.line, told.got) == ("train.metric", 2, '"instance_f1"')
    assert told.message == "expected a score of task semantic: miou, pixel_accuracy, mean_accuracy"


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["eval.tta=[flips]"], ["eval.tta"]),
        (["model.input.mode=slide", "model.input.crop=[64, 64]"], ["model.input.mode"]),
        (["losses=[{name: centers_offsets, class_weights: auto}]"], ["losses.0.class_weights"]),
        (["task=panoptic"], ["task"]),
    ],
)
def test_what_is_for_class_maps_alone_is_told_before_a_network_of_objects_trains(words: list[str], keys: list[str]):
    with pytest.raises(ConfigError) as caught:
        Config.load("center_shapes", *words)
    assert [problem.key for problem in caught.value.problems] == keys


def test_a_dataset_without_the_truth_of_the_task_is_told_with_its_line_and_all_else(tmp_path: Path):
    found = problems_of(tmp_path / "a.yaml", "base: center_shapes\ndata:\n  name: camvid\ntrain:\n  batch: 0\n")
    assert [(problem.key, problem.line, problem.got) for problem in found] == [
        ("data.name", 3, '"camvid"'),
        ("train.batch", 5, "0"),
    ]
    message = "camvid gives SemanticTarget, and task instance needs InstancesTarget; datasets with it: shapes, "
    assert found[0].message.startswith(message)


def test_a_word_that_names_a_dataset_without_the_truth_of_the_task_is_told():
    with pytest.raises(ConfigError) as caught:
        Config.load("center_shapes", "data.name=camvid")
    assert [(problem.key, problem.file) for problem in caught.value.problems] == [("data.name", "override")]


def test_a_source_that_the_dataset_does_not_give_is_told_with_the_line_of_what_the_recipe_states(tmp_path: Path):
    message = "the network takes the source 'before' (image); folder gives: none; datasets with it: pairs"
    found = problems_of(tmp_path / "a.yaml", "model:\n  name: fc_ef\n")
    assert [(problem.key, problem.line, problem.message) for problem in found] == [("model.name", 2, message)]
    found = problems_of(tmp_path / "a.yaml", "model:\n  name: fc_siam\ndata:\n  root: a\n  name: folder\n")
    assert [(problem.key, problem.line, problem.message) for problem in found] == [("data.name", 5, message)]


def test_a_network_that_is_not_trained_on_the_truth_of_its_task_is_told(monkeypatch: pytest.MonkeyPatch):
    entry = replace(ARCHITECTURES["center"], needs=Needs())
    monkeypatch.setitem(ARCHITECTURES, "center", entry)
    with pytest.raises(ConfigError, match="its truth is InstancesTarget, and center trains on SemanticTarget"):
        Config.load("center_shapes")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("{name: unet, width: 4}", "the network has no auxiliary head; set model.aux=true"),
        ("{name: unet, width: 4, aux: true}", "the network has: aux.fcn"),
        ("{name: temperature, host: {name: unet, width: 4, aux: true}}", "the network has: aux.fcn"),
    ],
)
def test_a_loss_on_auxiliary_logits_that_the_network_does_not_give_is_told_with_its_line(
    tmp_path: Path, model: str, message: str
):
    file = tmp_path / "a.yaml"
    file.write_text(f"model: {model}\nlosses:\n- cross_entropy\n- name: cross_entropy\n  on: aux.points\n")
    result = CliRunner().invoke(app, ["config", "check", "--config", str(file)])
    assert result.exit_code == 2, result.output
    assert "line 5   losses.1.on" in result.output
    assert message in " ".join(result.output.split())


def test_the_losses_for_an_output_begin_with_its_default():
    assert next(iter(losses_for("SemanticLogits"))) == "cross_entropy"
    assert losses_for("PointLogits") == {}
