"""`segatlas eval` from the command line to its files and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from segatlas.cli.evaluate import evaluate, short_names, split_models
from segatlas.cli.main import Verbs
from segatlas.errors import UsageError

CLASSES = ("sky", "road", "car")


def segatlas(*words: object) -> Result:
    app = typer.Typer(cls=Verbs)
    app.callback()(lambda: None)
    app.command("eval")(evaluate)
    return CliRunner().invoke(app, ["eval", *map(str, words), "--device", "cpu"])


def write_data(root: Path) -> Path:
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
        for seed in range(2):
            generator = np.random.default_rng(seed)
            picture = generator.integers(0, 256, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(picture).save(root / split / "images" / f"{split}{seed}.png")
            label = generator.choice([0, 1, 2, 255], (16, 16)).astype(np.uint8)
            Image.fromarray(label).save(root / split / "masks" / f"{split}{seed}.png")
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two model folders with other random weights."""
    import torch

    from segatlas.weights import create_model, save_pretrained

    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        save_pretrained(create_model("unet", num_classes=3, width=4), folder / name, classes=CLASSES)
    return folder / "a", folder / "b"


@pytest.fixture
def run(tmp_path: Path, models: tuple[Path, Path]) -> Path:
    """A run folder as training leaves it."""
    folder = tmp_path / "net-001"
    folder.mkdir()
    (folder / "model").symlink_to(models[0])
    data = write_data(tmp_path / "data")
    (folder / "config.yaml").write_text(f"data: {{root: {data}}}\nmodel: {{name: unet, width: 4}}\n")
    return folder


def test_a_run_is_scored_on_its_own_data_and_keeps_its_report(run: Path) -> None:
    result = segatlas(run)
    assert result.exit_code == 0, result.output
    stored = json.loads((run / "eval.json").read_text())
    assert stored["data"]["split"] == "val"
    for name in CLASSES:
        assert name in result.stdout
    assert f"{100 * stored['miou']:.2f} %" in result.stdout
    assert "TP / (TP + FP + FN)" in result.stdout.replace("\n", " ")


def test_json_is_one_last_line_on_stdout_and_the_rest_on_stderr(run: Path, tmp_path: Path) -> None:
    result = segatlas(
        run, "--json", "--split", "train", "--out", tmp_path / "out", "--tta", "flips", "--window", "8x16"
    )
    assert result.exit_code == 0, result.output
    line = json.loads(result.stdout)
    stored = json.loads((tmp_path / "out" / "eval.json").read_text())
    assert line["miou"] == stored["miou"]
    assert line["iou"]["road"] == stored["per_class"][1]["iou"]
    assert line["report"] == str(tmp_path / "out" / "eval.json")
    assert (stored["settings"]["tta"], stored["settings"]["window"]) == (["flips"], [8, 16])
    assert "mean IoU" in result.stderr
    assert not (run / "eval.json").exists()


def test_two_models_are_compared_on_the_same_pictures(run: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
    result = segatlas(*models, "--data", run.parent / "data", "--compare", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    first, second = json.loads(result.stdout.splitlines()[-1])["reports"]
    assert "[2] - [1]" in result.stderr
    assert f"{100 * (second['miou'] - first['miou']):+.2f}" in result.stderr
    assert sorted(path.parent.name for path in (tmp_path / "out").rglob("eval.json")) == ["a", "b"]


def test_words_with_equal_signs_override_the_recipe(run: Path) -> None:
    result = segatlas(run, "eval.split=train", "eval.boundary=false", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    line = json.loads(result.stdout)
    assert line["split"] == "train"
    assert "mean_boundary_iou" not in line
    assert result.stderr == ""


def test_a_bad_file_is_reported_and_the_exit_code_is_1(run: Path) -> None:
    (run.parent / "data" / "val" / "images" / "val0.png").write_bytes(b"")
    result = segatlas(run, "--quiet", "--json")
    assert result.exit_code == 1
    assert "val0.png" in result.stderr
    assert json.loads(result.stdout)["pictures"] == 1
    assert len(json.loads((run / "eval.json").read_text())["skipped"]) == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--compare"], 2, "--compare needs two"),
        (["--window", "big"], 2, "--window"),
        (["--tta", "spin"], 2, "spin"),
        (["--data", "no_such.yaml"], 2, "no_such.yaml"),
        (["eval.splt=train"], 2, "split"),
        (["--split", "test"], 1, "test"),
    ],
)
def test_mistakes_have_a_message_and_a_code_and_write_nothing(
    run: Path, words: list[str], code: int, message: str
) -> None:
    result = segatlas(run, *words)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (run / "eval.json").exists()


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = segatlas(tmp_path / "nothing", "--data", write_data(tmp_path / "data"))
    assert result.exit_code == 1
    assert "nothing" in result.stderr


def test_published_weights_obey_offline_and_commercial_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGATLAS_CACHE", str(tmp_path / "cache"))
    data = ("--data", write_data(tmp_path / "data"))
    offline = segatlas("pspnet-r50-ade20k", *data, "--offline")
    assert (offline.exit_code, "downloads are off" in offline.stderr) == (1, True)
    refused = segatlas("segformer-b0-ade20k", *data, "--offline", "--commercial-ok")
    assert (refused.exit_code, "commercial use is asked for" in refused.stderr) == (1, True)


def test_an_output_folder_that_cannot_be_written_stops_before_the_work(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = segatlas(run, "--out", tmp_path / "file")
    assert result.exit_code == 2
    assert "cannot write" in result.stderr


def test_models_and_overrides_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1").mkdir()
    assert split_models(["runs/a", "data.root=x", "lr=0.1"]) == (["runs/a", "lr=0.1"], ["data.root=x"])
    with pytest.raises(UsageError, match="which model"):
        split_models(["data.root=x"])
    with pytest.raises(UsageError, match="twice"):
        split_models(["a", "a"])


def test_short_names_tell_paths_apart() -> None:
    assert short_names(["runs/a/model", "runs/b/model"]) == ["a/model", "b/model"]
    assert short_names(["runs/a", "other/b/"]) == ["a", "b"]
    assert short_names(["a", "x/a"]) == ["a", "x/a"]
