"""`segatlas eval` from the command line to its files and exit codes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from segatlas.cli.evaluate import labels_of, parse_bounds, runs_of, short_names, split_models
from segatlas.cli.main import app
from segatlas.errors import DataError, UsageError
from segatlas.evaluation.comparison import check_same

CLASSES = ("sky", "road", "car")


def segatlas(*words: object) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, words), "--device", "cpu"])


def write_data(root: Path) -> Path:
    for split in ("train", "val"):
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
        for seed in range(2):
            generator = np.random.default_rng(seed)
            image = generator.integers(0, 256, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(image).save(root / split / "images" / f"{split}{seed}.png")
            label = generator.choice([0, 1, 2, 255], (16, 16)).astype(np.uint8)
            Image.fromarray(label).save(root / split / "masks" / f"{split}{seed}.png")
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two model folders with other random weights."""
    import torch

    from segatlas.build.network import create_model
    from segatlas.build.saving import save_pretrained

    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate("ab"):
        torch.manual_seed(seed)
        save_pretrained(create_model("unet", num_classes=3, width=4), folder / name, classes=CLASSES)
    return folder / "a", folder / "b"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "nowhere: no such folder, no dataset (shapes, cityscapes, "),
        ("unet_camvit", "and no recipe of that name; nearest recipe: unet_camvid"),
        ("camvid", "camvid: no such folder; a dataset has that name: give the folder of its files, or a recipe"),
    ],
)
def test_data_that_is_not_there_is_told_with_what_was_looked_for(models, name: str, message: str):
    result = segatlas(models[0], "--data", name)
    assert result.exit_code == 2
    assert message in result.stderr


def torch_checkpoint(run: Path) -> Path:
    """Write checkpoints/last.ckpt of a run with the weights of its model, as training does."""
    import torch
    from safetensors.torch import load_file

    weights = {f"net.{name}": tensor for name, tensor in load_file(run / "model" / "model.safetensors").items()}
    content = {"state_dict": weights, "card": json.loads((run / "model" / "card.json").read_text())}
    torch.save(content, run / "checkpoints" / "last.ckpt")
    return run / "checkpoints" / "last.ckpt"


@pytest.fixture
def run(tmp_path: Path, models: tuple[Path, Path]) -> Path:
    """A run folder as training leaves it."""
    folder = tmp_path / "net-001"
    folder.mkdir()
    shutil.copytree(models[0], folder / "model")
    data = write_data(tmp_path / "data")
    (folder / "config.yaml").write_text(f"data: {{root: {data}}}\nmodel: {{name: unet, width: 4}}\n")
    return folder


def test_a_run_is_scored_on_its_own_data_and_keeps_the_report_of_its_training(run: Path) -> None:
    (run / "eval.json").write_text("of the training")
    result = segatlas(run)
    assert result.exit_code == 0, result.output
    stored = json.loads((run / "evaluations" / "val.json").read_text())
    assert stored["data"]["split"] == "val"
    for name in CLASSES:
        assert name in result.stdout
    assert f"{100 * stored['miou']:.2f} %" in result.stdout
    assert f"written: {run / 'evaluations' / 'val.json'}" in result.stdout
    assert (run / "eval.json").read_text() == "of the training"


def test_definitions_are_printed_for_explain_and_stored_always(run: Path) -> None:
    short, long = segatlas(run), segatlas(run, "--explain")
    sentence = "TP / (TP + FP + FN)"
    assert sentence not in short.stdout
    assert sentence in long.stdout.replace("\n", " ")
    assert sentence in json.loads((run / "evaluations" / "val.json").read_text())["definitions"]["iou"]
    assert len(short.stdout.splitlines()) < 40


def test_each_way_to_evaluate_a_run_has_a_file_of_its_own(run: Path) -> None:
    data = write_data(run.parent / "more data")
    ways = {
        "train": ("--split", "train"),
        "val-flips-scales-0.75-1": ("--tta", "flips,scales:0.75,1"),
        "val-window8x16": ("--window", "8x16"),
        "val-on-more-data": ("--data", data),
        "val": (),
        "val-2": ("--batch", "2"),
        "val-3": ("eval.boundary=false",),
    }
    for words in ways.values():
        assert segatlas(run, "--quiet", *words).exit_code == 0
    files = {file.stem: json.loads(file.read_text()) for file in (run / "evaluations").iterdir()}
    assert set(files) == set(ways)
    assert len({stored["question"] for stored in files.values()}) == len(ways)
    assert files["val-2"]["settings"]["batch"] == 2


def test_the_same_evaluation_again_replaces_its_own_report_and_says_so(run: Path) -> None:
    assert "in place of" not in segatlas(run, "--window", "8").stdout
    assert "in place of" in segatlas(run, "--window", "8").stdout
    assert [file.name for file in (run / "evaluations").iterdir()] == ["val-window8x8.json"]


def test_a_checkpoint_or_the_model_of_a_run_is_kept_in_the_run_too(run: Path) -> None:
    assert segatlas(run / "model", "--quiet").exit_code == 0
    (run / "checkpoints").mkdir()
    weights = torch_checkpoint(run)
    assert segatlas(weights, "--quiet", "--data", run.parent / "data").exit_code == 0
    assert {file.name for file in (run / "evaluations").iterdir()} == {"val.json", "val-last-on-data.json"}


def test_a_model_outside_of_a_run_is_said_to_leave_no_report(run: Path, models: tuple[Path, Path]) -> None:
    result = segatlas(models[0], "--data", run.parent / "data")
    assert "not kept" in result.stdout
    assert "--out" in result.stdout


def test_out_takes_no_report_s_place(run: Path, tmp_path: Path) -> None:
    (run / "eval.json").write_text("of the training")
    own = segatlas(run, "--out", run, "--quiet")
    assert (own.exit_code, "belongs to its training" in own.stderr) == (2, True)
    assert (run / "eval.json").read_text() == "of the training"
    assert segatlas(run, "--out", tmp_path / "out", "--quiet").exit_code == 0
    assert segatlas(run, "--out", tmp_path / "out", "--quiet").exit_code == 0
    other = segatlas(run, "--out", tmp_path / "out", "--split", "train")
    assert (other.exit_code, "holds another evaluation" in other.stderr) == (2, True)
    assert json.loads((tmp_path / "out" / "eval.json").read_text())["data"]["split"] == "val"


def test_reports_of_several_models_go_into_no_run_folder_below_out(run: Path, models: tuple[Path, Path]) -> None:
    (run / "eval.json").write_text("of the training")
    result = segatlas(run, models[0], "--data", run.parent / "data", "--out", run.parent)
    assert (result.exit_code, "belongs to its training" in result.stderr) == (2, True)
    assert (run / "eval.json").read_text() == "of the training"


@pytest.mark.parametrize("part", ["model", "checkpoints", "evaluations", "plots", "model/deeper"])
def test_out_is_no_part_of_a_run(run: Path, models: tuple[Path, Path], part: str) -> None:
    result = segatlas(models[0], "--data", run.parent / "data", "--out", run / part)
    assert (result.exit_code, "is a part of the run folder" in " ".join(result.stderr.split())) == (2, True)
    assert not list(run.rglob("eval.json"))


def test_out_may_be_a_folder_of_plots_beside_some_other_config_file(run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("theme: dark\n")
    assert segatlas(run, "--quiet", "--out", tmp_path / "plots").exit_code == 0
    assert (tmp_path / "plots" / "eval.json").is_file()


def test_two_names_of_one_model_would_be_one_report_and_are_told(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segatlas.inference import Predictor

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an image was predicted")

    monkeypatch.setattr(Predictor, "predict_stream", refuse)
    monkeypatch.chdir(run)
    same_file = {
        (str(run), str(run / "model")): run / "evaluations" / "val.json",
        (str(run / "model"), "model"): run / "evaluations" / "val.json",
        ("model", "./model", "--out", str(tmp_path / "out")): tmp_path / "out" / "model" / "eval.json",
    }
    for words, file in same_file.items():
        result = segatlas(*words)
        assert result.exit_code == 2, result.output
        told = f"two of the models would be written to {file}; evaluate them one by one"
        assert told in " ".join(result.stderr.split())
        assert not file.exists()


def test_models_of_one_name_have_reports_of_their_own(run: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
    for parent, model in zip("xy", models, strict=True):
        shutil.copytree(model, tmp_path / parent / "model")
    data, out = ("--data", run.parent / "data"), tmp_path / "out"
    pairs = [(tmp_path / "x/model", tmp_path / "y/model"), (run, run / "checkpoints" / "last.ckpt")]
    (run / "checkpoints").mkdir()
    torch_checkpoint(run)
    assert segatlas(*pairs[0], *data, "--out", out, "--quiet").exit_code == 0
    stored = {file.parent.name: json.loads(file.read_text()) for file in out.rglob("eval.json")}
    assert {name: one["model"]["path"] for name, one in stored.items()} == {
        "x_model": str(tmp_path / "x/model"), "y_model": str(tmp_path / "y/model"),
    }  # fmt: skip
    assert stored["x_model"]["miou"] != stored["y_model"]["miou"]
    assert segatlas(*pairs[1], "--quiet").exit_code == 0
    assert {file.name for file in (run / "evaluations").iterdir()} == {"val.json", "val-last.json"}


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        ("missing", 1, "nothing"),
        ("classes", 1, "have different classes"),
        ("out", 2, "cannot write"),
        ("images", 1, "--compare needs the same images"),
        ("sizes", 1, "are scored with eval.size_bounds=[10, 100] and [1024, 9216], which are other numbers"),
    ],
)
def test_nothing_is_scored_before_all_models_data_and_places_are_found_good(
    run: Path, models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, code: int,
    message: str,
) -> None:  # fmt: skip
    from segatlas.build.network import create_model
    from segatlas.build.saving import save_pretrained
    from segatlas.inference import Predictor

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an image was predicted")

    monkeypatch.setattr(Predictor, "predict_stream", refuse)
    words: list[object] = [models[0], models[1], "--data", run.parent / "data", "--compare"]
    if fault == "missing":
        words[1] = tmp_path / "nothing"
    elif fault == "classes":
        save_pretrained(create_model("unet", num_classes=4, width=4), tmp_path / "four", classes=(*CLASSES, "sign"))
        words[1] = tmp_path / "four"
    elif fault == "out":
        (tmp_path / "file").write_text("")
        words += ["--out", tmp_path / "file" / "deep"]
    elif fault == "sizes":
        other, own = run.parent / "other", (run / "config.yaml").read_text()
        shutil.copytree(models[1], other / "model")
        (other / "config.yaml").write_text(own)
        (run / "config.yaml").write_text(own + "eval: {size_bounds: [10, 100]}\n")
        words = [run, other, "--compare"]
    elif fault == "images":
        other = tmp_path / "other"
        other.mkdir()
        (other / "model").symlink_to(models[1])
        data = write_data(tmp_path / "fewer")
        for kind in ("images", "masks"):
            (data / "val" / kind / "val1.png").unlink()
        (other / "config.yaml").write_text(f"data: {{root: {data}}}\nmodel: {{name: unet, width: 4}}\n")
        words = [run, other, "--compare"]
    result = segatlas(*words)
    assert result.exit_code == code, result.output
    assert message in " ".join(result.stderr.split())
    assert not list(tmp_path.rglob("evaluations"))


def test_models_that_could_not_score_the_same_images_are_not_compared(models: tuple[Path, Path]) -> None:
    from types import SimpleNamespace as Some

    first, second = (
        Some(model=Some(path=path), images=[Some(key=key) for key in keys], scores=Some(classes=CLASSES), counts=None)
        for path, keys in (("a", "xy"), ("b", "xz"))
    )
    check_same([first, first])
    with pytest.raises(DataError, match="a could score 2 images, b 2"):
        check_same([first, second])


def test_runs_joined_by_commas_or_found_by_a_pattern_are_one_model(tmp_path: Path) -> None:
    for name in ("a_1", "a_0", "b,c"):
        (tmp_path / name).mkdir()
    (tmp_path / "a_0.log").touch()
    assert runs_of(f"{tmp_path}/a_*") == [f"{tmp_path}/a_0", f"{tmp_path}/a_1"]
    assert runs_of("x,y") == ["x", "y"]
    assert runs_of(f"{tmp_path}/b,c") == [f"{tmp_path}/b,c"]
    with pytest.raises(UsageError, match=r"z_\*: no run is called so"):
        runs_of(f"{tmp_path}/z_*")
    words = [f"{tmp_path}/a_*", "x/c,x/d", "y/c"]
    assert labels_of(words, [runs_of(word) for word in words]) == ["a_*", "x/c,x/d", "y/c"]
    assert labels_of(words[:2], [runs_of(word) for word in words[:2]]) == ["a_*", "c,d"]
    assert parse_bounds("0.01,0.1") == (0.01, 0.1)
    with pytest.raises(UsageError, match="--size-bounds: got '9,x'; expected two rising numbers"):
        parse_bounds("9,x")


def test_seeds_are_compared_with_intervals_and_kept_as_file_and_page(run: Path, models: tuple[Path, Path]) -> None:
    second = shutil.copytree(models[1], run.parent / "second")
    words = (f"{run},{models[0]}", f"{second},{models[1]}", "--data", run.parent / "data", "--compare")
    words = (*words, "--small-classes", "CAR", "--draws", "50", "--out", run.parent / "out", "--json")
    result = segatlas(*words)
    assert result.exit_code == 0, result.output
    line = json.loads(result.stdout.splitlines()[-1])["comparison"]
    stored = json.loads((run.parent / "out" / "compare.json").read_text())
    assert {**stored, "file": line["file"]} == line
    assert [len(model["runs"]) for model in stored["models"]] == [2, 2]
    assert stored["models"][0]["spread"]["miou"] == 0  # the same weights twice
    labels = [model["label"] for model in stored["models"]]
    assert labels == [f"{run.name},{models[0].name}", f"second,{models[1].name}"]  # a mean bears all names
    assert len(stored["differences"][0]["pairs"]) == 2
    assert stored["differences"][0]["means"]["small_classes_iou"].keys() == {
        "difference", "low", "high", "better", "within_spread",
    }  # fmt: skip
    assert "spread of 1" in result.stderr
    assert "nan" not in result.stderr
    quiet = segatlas(*words[:-3], "--quiet").stdout.splitlines()
    assert len(quiet) == 5  # four scores and the difference
    assert quiet[-1].startswith(f"{labels[1]} minus {labels[0]}: ")
    assert "points of mean IoU, 95 % interval [" in quiet[-1]
    assert result.stderr.index("spread of 1") < result.stderr.index("95 % interval")
    assert (run.parent / "out" / "compare.html").read_text().count("<img") == 1
    wrong = segatlas(*words[:3], run.parent / "data", "--small-classes", "cat")
    assert wrong.exit_code == 2
    assert "no class 'cat'; did you mean 'car'? There are: sky, road, car" in wrong.stderr


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


def test_two_models_are_compared_on_the_same_images(run: Path, models: tuple[Path, Path], tmp_path: Path) -> None:
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


def test_quiet_leaves_the_score_and_csv_holds_each_class_and_image(run: Path, tmp_path: Path) -> None:
    done = segatlas(run, "--quiet", "--csv", tmp_path / "tables")
    stored = json.loads((run / "evaluations" / "val.json").read_text())
    assert done.stdout == f"{run}: mean IoU {100 * stored['miou']:.2f} % on val\n"
    classes, images = (
        list(csv.DictReader((tmp_path / "tables" / name).open())) for name in ("per_class.csv", "per_image.csv")
    )
    assert [row["class"] for row in classes] == list(CLASSES)
    assert [row["key"] for row in images] == [row["key"] for row in stored["images"]]
    for row, kept in zip(classes, stored["per_class"], strict=True):
        assert (row["model"], row["split"]) == (str(run), "val")
        assert float(row["iou"]) == pytest.approx(kept["iou"], rel=1e-5)
    for row, kept in zip(images, stored["images"], strict=True):
        ious = [float(row[f"iou {name}"]) for name in CLASSES if row[f"iou {name}"]]
        assert float(row["image_miou"]) == pytest.approx(kept["image_miou"], rel=1e-5)
        assert float(row["image_miou"]) == pytest.approx(sum(ious) / len(ious), rel=1e-5)


def test_a_bad_file_is_reported_and_the_exit_code_is_1(run: Path) -> None:
    (run.parent / "data" / "val" / "images" / "val0.png").write_bytes(b"")
    result = segatlas(run, "--quiet", "--json")
    assert result.exit_code == 1
    assert "val0.png" in result.stderr
    assert json.loads(result.stdout)["images"] == 1
    assert len(json.loads((run / "evaluations" / "val.json").read_text())["skipped"]) == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--compare"], 2, "--compare needs two"),
        (["--draws", "50"], 2, "--draws and --draw-seed are of --compare"),
        (["--draw-seed", "0"], 2, "--draws and --draw-seed are of --compare"),
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
    assert not (run / "evaluations").exists()


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
