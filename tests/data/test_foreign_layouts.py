"""Folders of annotation tools are told by name, and the advice that is printed works."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import Result
from fakes import broken
from fakes.annotation_tools import (
    CVAT_COLORS,
    TOOLS,
    cvat_masks,
    label_studio_brush,
    mmseg,
    nnunet,
    roboflow_masks,
    yolo,
)
from fakes.camvid import write_camvid
from fakes.folder import write_folder
from fakes.voc import write_voc
from typer.testing import CliRunner

from segatlas.build.network import create_model
from segatlas.build.saving import save_pretrained
from segatlas.cli.main import app
from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset, describe_layout
from segatlas.data.checks import examine
from segatlas.data.datasets.foreign import recognise
from segatlas.data.shapes import make_shapes
from segatlas.errors import DataError
from segatlas.inference import Predictor

NAMES = ("folder", "camvid", "voc", "cityscapes", "ade20k")


def segatlas(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)])


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tools_folder_is_called_by_its_name_by_check_and_no_repair_is_offered(tmp_path: Path, tool: str) -> None:
    write, name = TOOLS[tool]
    write(tmp_path / "set")
    result = segatlas("data", "check", tmp_path / "set", "--json")
    assert result.exit_code == 1
    record = json.loads(result.stdout)
    assert record["ok"] is False
    assert [finding["kind"] for finding in record["findings"]] == ["layout"]
    assert record["findings"][0]["fault"].startswith(f"is {name} (recognised by ")
    assert "--fix" not in result.output


@pytest.mark.parametrize("tool", TOOLS)
def test_training_and_evaluation_call_it_by_the_same_name(tmp_path: Path, tool: str) -> None:
    write, name = TOOLS[tool]
    write(tmp_path / "set")
    for kind in NAMES:
        with pytest.raises(DataError, match=f"is not laid out as data.name={kind}: .* it is {name} "):
            create_dataset(DataConfig(name=kind, root=str(tmp_path / "set")), "train")
    result = segatlas("data", "stats", tmp_path / "set")
    assert result.exit_code == 1
    assert name in result.stderr


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = create_model("unet", num_classes=2, width=2)
    return save_pretrained(net, tmp_path_factory.mktemp("model") / "a", classes=("ground", "disc"))


@pytest.fixture
def unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no image be predicted."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("an image was predicted")

    monkeypatch.setattr(Predictor, "predict_stream", refuse)


@pytest.mark.usefixtures("unscored")
@pytest.mark.parametrize("tool", TOOLS)
def test_eval_names_the_tool_and_neither_scores_nor_writes(tmp_path: Path, model: Path, tool: str) -> None:
    write, name = TOOLS[tool]
    write(tmp_path / "set")
    result = segatlas("eval", model, "--data", tmp_path / "set", "--device", "cpu", "--out", tmp_path / "out")
    assert result.exit_code == 1, result.output
    assert f"is {name} (recognised by" in result.stderr
    assert not list((tmp_path / "out").rglob("*"))


@pytest.mark.usefixtures("unscored")
@pytest.mark.parametrize("tool", ["coco_roboflow", "labelme", "cvat_masks", "yolo"])
def test_other_commands_that_read_data_name_the_tool_and_write_nothing(tmp_path: Path, model: Path, tool: str) -> None:
    write, name = TOOLS[tool]
    write(tmp_path / "set")
    before = sorted(tmp_path.rglob("*"))
    for words in (
        ("eval", model, f"data.root={tmp_path / 'set'}", "--device", "cpu"),
        ("train", "unet_folder", f"data.root={tmp_path / 'set'}", "--dry-run"),
        ("data", "stats", tmp_path / "set", "--out", tmp_path / "stats.json"),
        ("data", "preview", tmp_path / "set", "--out", tmp_path / "sheet.png"),
        ("data", "convert", tmp_path / "set", tmp_path / "converted"),
    ):
        result = segatlas(*words)
        assert result.exit_code == 1, result.output
        assert f"is {name} (recognised by" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("layout", ["split_first", "kind_first", "flat"])
def test_masks_in_a_folder_called_labels_are_read(tmp_path: Path, layout: str) -> None:
    root = write_folder(tmp_path / "set", layout=layout)
    for folder in [path for path in sorted(root.rglob("masks")) if path.is_dir()]:
        folder.rename(folder.with_name("labels"))
    assert describe_layout(root) == "folder"
    data = create_dataset(DataConfig(root=str(root)), "train")
    assert set(data.load(0).label.ravel()) == {0, 1, 2}
    assert segatlas("data", "check", root).exit_code == 0


def test_a_labels_folder_of_text_beside_masks_changes_nothing(tmp_path: Path) -> None:
    yolo(tmp_path)
    write_folder(tmp_path, layout="kind_first")
    for path in tmp_path.glob("images/*/*.jpg"):
        path.unlink()
    assert describe_layout(tmp_path) == "folder"
    assert segatlas("data", "check", tmp_path).exit_code == 0


def test_camvids_own_images_and_labels_are_still_camvid(tmp_path: Path) -> None:
    write_camvid(tmp_path, layout="original")
    (tmp_path / "701_StillsRaw_full").rename(tmp_path / "images")
    (tmp_path / "LabeledApproved_full").rename(tmp_path / "labels")
    assert describe_layout(tmp_path) == "camvid"


def test_our_own_layouts_are_no_foreign_ones(tmp_path: Path) -> None:
    make_shapes(tmp_path / "shapes", train=2, val=1, test=1, size=(32, 32), seed=0)
    assert describe_layout(tmp_path / "shapes") == "shapes"  # it has COCO annotations besides
    write_voc(tmp_path / "voc")
    for folder in (tmp_path / "voc", tmp_path / "voc/VOCdevkit/VOC2012"):
        (folder / "labelmap.txt").write_text("# label:color_rgb:parts:actions\naeroplane:128,0,0::\n")
        assert describe_layout(tmp_path / "voc") == "voc"
    assert recognise(broken.write_sound(tmp_path / "sound")) is None


def overrides(text: str) -> list[str]:
    return list(re.findall(r'"(data\.[^"]*)"', text)) + re.findall(r"(?<!\")\bdata\.name=\w+", text)


def move(advice: str) -> None:
    """Do what the lines `mv OLD NEW` of an advice say."""
    lines = [shlex.split(line) for line in advice.splitlines() if line.startswith("mv ")]
    assert lines
    for _, old, new in lines:
        Path(old).rename(new)


def test_the_advice_for_a_cvat_export_of_masks_makes_it_clean_with_its_names(tmp_path: Path) -> None:
    root = tmp_path / "a set"
    cvat_masks(root)
    advice = json.loads(segatlas("data", "check", root, "--json").stdout)["findings"][0]["repair"]
    assert "rename JPEGImages to images and SegmentationClass to masks" in advice
    move(advice)
    result = segatlas("data", "check", root, *overrides(advice), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["classes"] == list(CVAT_COLORS)


def test_the_advice_for_a_roboflow_export_of_masks_makes_it_clean_with_its_names(tmp_path: Path) -> None:
    roboflow_masks(tmp_path)
    advice = json.loads(segatlas("data", "check", tmp_path, "--json").stdout)["findings"][0]["repair"]
    for split, folder in (("train", "train"), ("val", "valid")):
        masks = sorted((tmp_path / folder).glob("*_mask.png"))
        lines = [f"{folder}/{mask.name.removesuffix('_mask.png')}.jpg,{folder}/{mask.name}" for mask in masks]
        (tmp_path / f"{split}.csv").write_text("\n".join(lines))
    result = segatlas("data", "check", tmp_path, *overrides(advice), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["classes"] == ["background", "car", "tree"]


def test_the_advice_for_folders_under_other_names_makes_them_clean(tmp_path: Path) -> None:
    mmseg(tmp_path / "a")
    advice = json.loads(segatlas("data", "check", tmp_path / "a", "--json").stdout)["findings"][0]["repair"]
    assert "rename img_dir to images and ann_dir to masks" in advice
    move(advice)
    assert segatlas("data", "check", tmp_path / "a").exit_code == 0
    nnunet(tmp_path / "b")
    advice = json.loads(segatlas("data", "check", tmp_path / "b", "--json").stdout)["findings"][0]["repair"]
    assert "without _0000" in advice
    subprocess.run(["sh", "-c", advice.partition("in a shell: ")[2].partition("\n")[0]], check=True)
    move(advice)
    assert segatlas("data", "check", tmp_path / "b").exit_code == 0


def test_no_rename_is_printed_onto_what_is_there_already(tmp_path: Path) -> None:
    mmseg(tmp_path / "a")
    (tmp_path / "a" / "images").mkdir()
    found = recognise(tmp_path / "a")
    assert found is not None
    assert found.advice.splitlines()[1:] == [f"mv {tmp_path}/a/ann_dir {tmp_path}/a/masks"]


def test_a_folder_of_another_layout_is_told_before_training_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mmseg(tmp_path / "a")
    for name in ("train", "dry_run"):
        monkeypatch.setattr(f"segatlas.training.{name}", None)
    for words in ((), ("--dry-run",)):
        result = segatlas("train", tmp_path / "a", *words)
        assert result.exit_code == 1
        assert "is not laid out as data.name=folder" in result.stderr
        assert f"\n  mv {tmp_path}/a/img_dir {tmp_path}/a/images\n" in result.stderr


def test_brush_labels_of_label_studio_beside_images_are_told_by_check_and_training(tmp_path: Path) -> None:
    label_studio_brush(tmp_path / "masks")
    for number in range(3):
        broken.save(tmp_path / "images" / f"{number}.jpg", broken.image_of(number))
    checked = segatlas("data", "check", tmp_path)
    assert checked.exit_code == 1
    assert checked.stdout.count("ERROR") == 1
    assert "WARNING" not in checked.stdout
    for words in (("train", tmp_path, "--dry-run"), ("data", "stats", tmp_path)):
        result = segatlas(*words)
        assert result.exit_code == 1
        assert "the masks there are Label Studio's brush labels: a file for each tag of a task" in result.stderr
        assert result.stderr.count("\n") <= 4


@pytest.mark.parametrize("place", ["", "images", "train/images"])
def test_photos_alone_are_said_to_have_no_masks_first(tmp_path: Path, place: str) -> None:
    for number in range(3):
        broken.save(tmp_path / place / f"{number}.jpg", broken.image_of(number))
    result = segatlas("train", tmp_path, "--dry-run")
    assert result.exit_code == 1
    assert f"error: {tmp_path}: no masks were found: there are images" in result.stderr
    checked = segatlas("data", "check", tmp_path).stdout
    assert ("fault   no masks were found" if place == "" else "there is no folder") in checked


@pytest.mark.parametrize("tool", TOOLS)
def test_no_advice_names_a_script_that_is_not_installed(tmp_path: Path, tool: str) -> None:
    TOOLS[tool][0](tmp_path / "set")
    repair = json.loads(segatlas("data", "check", tmp_path / "set", "--json").stdout)["findings"][0]["repair"]
    assert "labelme2voc" not in repair
    assert not re.search(r"\w\.py\b", repair)


def test_a_split_under_another_name_is_told(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path / "set")
    (root / "val").rename(root / "valid")
    result = segatlas("data", "check", root)
    assert result.exit_code == 0
    assert "rename valid to val" in result.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_set_without_one_image_is_an_error_of_every_data_set(tmp_path: Path, name: str) -> None:
    folders = {
        "folder": ("images", "masks"),
        "camvid": ("train", "trainannot"),
        "voc": ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"),
        "cityscapes": ("leftImg8bit", "gtFine"),
        "ade20k": ("images/training", "annotations/training"),
    }[name]
    for folder in folders:
        (tmp_path / "set" / folder).mkdir(parents=True)
    assert describe_layout(tmp_path / "set") == name
    result = segatlas("data", "check", tmp_path / "set", "--json")
    record = json.loads(result.stdout)
    assert (result.exit_code, record["ok"]) == (1, False)
    assert [finding["kind"] for finding in record["findings"]] == ["no_image"]
    assert "--fix" not in result.output
    assert segatlas("data", "stats", tmp_path / "set").exit_code == 1
    train = segatlas("train", "unet_folder", f"data.name={name}", f"data.root={tmp_path / 'set'}", "--dry-run")
    assert train.exit_code == 1
    assert "unexpected" not in train.stderr


def test_a_folder_that_holds_a_dataset_is_told_so_and_not_by_what_lies_deep_in_it(tmp_path: Path, model: Path) -> None:
    make_shapes(tmp_path / "up" / "set", train=2, val=1, test=1)  # with COCO annotations of its objects
    checked = segatlas("data", "check", tmp_path / "up")
    assert checked.exit_code == 1
    assert f"segatlas data check {tmp_path / 'up' / 'set'}" in "".join(checked.stdout.split("\n"))
    assert "COCO" not in checked.stdout
    with pytest.raises(DataError, match=r"it holds set, laid out as data\.name=shapes: data\.root="):
        create_dataset(DataConfig(name="folder", root=str(tmp_path / "up")), "train")
    evaluated = segatlas("eval", model, "--data", tmp_path / "up")
    assert evaluated.exit_code != 0
    assert f"the folder {tmp_path / 'up' / 'set'} in it is" in " ".join(evaluated.stderr.split())


@pytest.mark.parametrize("name", ["Masks", "Ground_Truth"])
def test_a_folder_of_masks_under_another_name_is_offered_where_masks_are_missing(tmp_path: Path, name: str) -> None:
    root = broken.write_sound(tmp_path / "set")
    other = (root / "train" / "masks").rename(root / "train" / name)
    wanted = f"there is no folder {root / 'train' / 'masks'}, but {other}: rename it to masks"
    assert wanted in next(found.fault for found in examine(root).errors if found.kind == "missing_mask")
    with pytest.raises(DataError, match=re.escape(wanted)):
        create_dataset(DataConfig(name="folder", root=str(root)), "train")
