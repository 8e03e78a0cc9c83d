"""Options, words and commands of other libraries are refused with what to write."""

from __future__ import annotations

import json

import pytest
from fakes.folder import write_folder
from typer.testing import CliRunner

from segatlas.cli.foreign_words import COMMANDS
from segatlas.cli.main import COMMANDS as OURS
from segatlas.cli.main import app


def refused(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 2, done.output
    return " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("--epochs 5", "no such option: --epochs; write train.epochs=5 for --epochs"),
        ("--batch-size=4", "write train.batch=4 for --batch-size"),
        ("--lr 0.01", "write train.lr=0.01 for --lr"),
        ("--imgsz 512", "write 'transforms.crop=[512,512]' for --imgsz"),
        ("--workers 2", "write data.workers=2 for --workers"),
        ("--seed 3", "write seed=3 for --seed"),
        ("--amp train.batch=2", "write train.precision=bf16 for --amp"),
        ("--work-dir out", "write run.dir=out for --work-dir"),
        ("--load-from a.pth", "write model.start_from=a.pth for --load-from"),
        ("--cfg-options train.lr=0.1", "for --cfg-options: KEY=VALUE words stand alone"),
        (
            "--device cpu --epochs 5 --lr 1 --launcher x",
            "write train.epochs=5 train.lr=1 for --epochs --lr; for --launcher:",
        ),
    ],
)
def test_an_option_of_another_library_is_told_with_the_key_and_its_value(options, told):
    assert told in refused("train", "data", *options.split())


def test_an_option_that_nobody_has_is_told_as_ever_and_so_is_one_of_a_command_without_keys():
    assert "No such option: --foo" in refused("train", "data", "--foo", 3)
    assert "train.epochs" not in refused("doctor", "--epochs", 3)


def test_words_of_another_library_in_the_place_of_a_recipe_are_told():
    said = refused("train", "data=d/data.yaml", "model=yolov8n-seg.pt", "epochs=5", "imgsz=512", "seed=1", "device=0")
    assert "which recipe?" in said
    keys = "model.name=NAME train.epochs=5 'transforms.crop=[512,512]' train.device=cuda"
    assert f"write {keys} for model epochs imgsz device; for data: the folder" in said
    assert refused("train", "train.epochs=3", "seed=1").endswith("or segatlas train DIR")


def test_words_of_another_library_behind_a_folder_are_told(tmp_path):
    root = write_folder(tmp_path / "set", counts={"train": 2, "val": 1})
    said = refused("train", root, "epochs=5", "imgsz=512", "batch_size=4", "model=unet", "data=x", "lr0=0.1")
    assert "did you mean 'train.epochs'?" in said
    for meant in ("transforms.crop=[512,512]", "train.batch=4", "model.name=unet", "train.lr=0.1"):
        assert f"did you mean {meant}?" in said
    assert "expected a group of keys - the folder of the data comes first: segatlas train DIR" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_of_another_library_is_told_with_ours(name):
    assert name not in OURS
    said = refused(name, "model=x.pt")
    assert (
        ("see docs/limits.md" in said) if name in ("export", "serve") else (f"no such command: {name}; write" in said)
    )


def test_a_task_before_the_command_is_told_with_the_command():
    assert refused("segment", "train", "data=x.yaml").endswith("write segatlas train")
    assert refused("detect", "val").endswith("write segatlas eval RUN")


def test_a_config_of_mmsegmentation_is_no_recipe_whether_it_is_there_or_not(tmp_path):
    (tmp_path / "there.py").write_text("norm_cfg = dict(type='BN')\n")
    for words in ((tmp_path / "there.py",), ("gone.py",), ("--config", tmp_path / "there.py")):
        said = refused("train", *words)
        assert "a config of MMSegmentation? They are not read; docs/from-mmsegmentation.md lists the recipes" in said


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames: {0: car}\n", "a YOLO data file"),
        ("data.yml", "train: a\nval: b\nnc: 1\nnames: [car]\n", "a YOLO data file"),
        (
            "dataset.json",
            json.dumps({"channel_names": {"0": "CT"}, "labels": {"background": 0}, "numTraining": 1}),
            "nnU-Net's description of a dataset",
        ),
    ],
)
def test_a_file_that_describes_a_dataset_is_no_recipe_and_its_folder_is_named(tmp_path, name, content, kind):
    (tmp_path / name).write_text(content)
    said = refused("train", tmp_path / name)
    assert f"is {kind}, no recipe; give its folder: {tmp_path}" in said
    assert "1 problem" in said


def test_a_word_with_a_key_in_the_place_of_a_model_is_told():
    told = "model=x.pt names no model; write segatlas predict MODEL IMAGES --out DIR"
    assert told in refused("predict", "model=x.pt", "source=photos")
    assert told in refused("predict", "model=x.pt", "drive.mp4", "--out", "a.mp4")
