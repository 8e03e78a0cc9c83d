"""What `segatlas train` makes of its words, and what it prints; the training itself is replaced."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fakes.camvid import write_camvid
from fakes.folder import write_folder
from fakes.shapes import write_shapes
from typer.testing import CliRunner

from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.cli.main import app
from segatlas.recipe import Config
from segatlas.training.checkpoints import Interrupted
from segatlas.training.run import Run


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Config]:
    """The recipes that were trained, each to the same score."""
    asked: list[Config] = []

    def train(config: Config, **_: object) -> Run:
        asked.append(config)
        return Run(dir=tmp_path / "run", best=tmp_path / "run" / "model", metrics={"miou": 0.5, "kappa": 0.25})

    monkeypatch.setattr("segatlas.training.fit.train", train)
    return asked


def run(*words: str):
    return CliRunner().invoke(app, ["train", "unet_shapes", "data.root=shapes", *words])


def test_device_devices_and_precision_are_short_for_their_keys(trained: list[Config]) -> None:
    assert run("--device", "cpu", "--devices", "2", "--precision", "bf16").exit_code == 0
    assert (trained[0].train.device, trained[0].train.devices, trained[0].train.precision) == ("cpu", 2, "bf16")
    wrong = run("--device", "gpu")
    assert wrong.exit_code == 2
    assert "train.device" in wrong.stderr


def test_quiet_leaves_the_score(trained: list[Config], tmp_path: Path) -> None:
    assert run("--quiet").stdout == f"{tmp_path}/run/model: miou 0.5000\n"
    assert "report: " in run().stdout
    line = run("--quiet", "--json")
    assert (line.stderr, line.stdout.count("\n")) == ("", 1)


@pytest.mark.parametrize(
    ("is_there", "told"), [(True, "continue with: segatlas train --resume"), (False, "nothing is")]
)
def test_an_interrupted_run_says_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_there: bool, told: str
) -> None:
    def train(*_: object, **__: object) -> Run:
        raise Interrupted(tmp_path if is_there else tmp_path / "gone", saved=False)

    monkeypatch.setattr("segatlas.training.fit.train", train)
    done = run()
    assert done.exit_code == 130
    assert told in done.stderr


def test_a_folder_in_place_of_a_recipe_takes_one_for_it_and_says_which(
    trained: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "mine", counts={"train": 2, "val": 1})
    write_camvid(tmp_path / "camvid")
    write_shapes(tmp_path / "things")
    (tmp_path / "things" / "shapes.json").unlink()
    for part in ("masks", "panoptic", "annotations"):
        for folder in list((tmp_path / "things").rglob(part)):
            shutil.rmtree(folder)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").rename(tmp_path / "7")
    (tmp_path / "camvid").rename(tmp_path / "my data: [street]")
    for folder, expected in (
        ("7", ("unet", "folder", "semantic")),
        ("my data: [street]", ("unet", "camvid", "semantic")),
        ("./things", ("mask_rcnn", "folder", "instance")),
    ):
        done = CliRunner().invoke(app, ["train", folder, "train.batch=2"])
        assert done.exit_code == 0, done.output
        cfg = trained[-1]
        assert (cfg.model.name, cfg.data.name, cfg.task) == expected
        assert (cfg.train.batch, Path(cfg.data.root or "")) == (2, Path(folder))
        assert f"{folder} is a folder; its recipe: {expected[0]}_folder" in done.stdout


def test_weights_to_begin_with_bring_their_network_to_a_folder(
    trained: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "mine", counts={"train": 2, "val": 1})
    net = create_model("fpn", num_classes=7, encoder="resnet18_w8", channels=32)
    save_pretrained(net, tmp_path / "theirs", classes=[f"class_{index}" for index in range(7)])
    monkeypatch.chdir(tmp_path)
    for start, expected in (("theirs", ("fpn", 32)), ("nothing", ("unet", None))):
        done = CliRunner().invoke(app, ["train", "mine", f"model.start_from={start}", "train.batch=2"])
        assert done.exit_code == 0, done.output
        model = trained[-1].model
        assert (model.name, model.architecture_fields().get("channels"), model.start_from) == (*expected, start)
    done = CliRunner().invoke(app, ["train", "mine", "model.start_from=theirs", "model.name=linknet"])
    assert trained[-1].model.name == "linknet"  # what a word says stays


def test_a_folder_called_like_a_recipe_is_told(
    trained: list[Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unet_shapes").mkdir()
    monkeypatch.chdir(tmp_path)
    done = run()
    assert "unet_shapes is taken as the recipe of that name; for the folder write ./unet_shapes" in done.stdout
    assert trained[0].data.root == "shapes"


def test_a_word_that_is_no_folder_and_no_recipe_is_told_with_both_that_are_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unet_foldr").mkdir()
    monkeypatch.chdir(tmp_path)
    for command in (["train"], ["data", "check"], ["data", "stats"], ["distill"]):
        done = CliRunner().invoke(app, [*command, "unet_folde"])
        assert done.exit_code == 2
        told = "unet_folde: no such folder, and no recipe of that name; folder called nearly so: unet_foldr"
        assert f"{told}; nearest recipe: unet_folder" in done.stderr
