"""`segatlas data ...` through the real command line: output, files, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from fakes import broken
from fakes.annotation_tools import cvat_masks
from fakes.camvid import write_camvid
from PIL import Image
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.data import Store


def segatlas(*words: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, words)])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return broken.write_sound(tmp_path / "data")


def test_a_sound_folder_exits_0_and_says_clean_and_what_trains_on_it(root: Path) -> None:
    result = segatlas("check", root)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-2:] == [
        "clean: 0 errors, 0 warnings in 8 images",
        f"next: segatlas train {root}",
    ]
    assert "train       6 images      6 masks" in result.stdout


def test_a_fault_exits_1_and_names_file_fault_and_repair(root: Path) -> None:
    broken.out_of_range(root)
    result = segatlas("check", root)
    assert result.exit_code == 1
    assert "ERROR  label out of range  1 file" in result.stdout
    assert "train/masks/002.png   89: 12 pixels" in result.stdout
    assert "label 89 in a set of 2 classes; expected 0..1, or 255 for ignore" in result.stdout
    assert result.stdout.splitlines()[-1].endswith(f"segatlas data check {root} --fix NEW_FOLDER")


@pytest.mark.parametrize("faults", [(broken.half_size, broken.leaked), (broken.missing_image,)])
def test_the_command_for_a_repaired_copy_is_printed_once_with_all_that_was_typed(root: Path, faults) -> None:
    for fault in faults:
        fault(root)
    printed = segatlas("check", root, "data.val_fraction=0.3").stdout
    assert printed.count("--fix NEW_FOLDER") == len(faults) + 1
    assert printed.count("segatlas data check") == 1
    line = next(line for line in printed.splitlines() if line.startswith("A repaired copy"))
    assert line.endswith(f"segatlas data check {root} data.val_fraction=0.3 --fix NEW_FOLDER")


def test_many_files_are_grouped_and_json_has_them_all(root: Path) -> None:
    broken.black_white(root)
    result = segatlas("check", root, "--json")
    assert result.exit_code == 1
    assert "... and 3 more" in result.stderr
    record = json.loads(result.stdout)
    assert record["findings"][0]["kind"] == "black_white"
    assert len(record["findings"][0]["files"]) == 8


def test_the_printed_override_makes_the_set_clean(root: Path) -> None:
    broken.black_white(root)
    words = 'add to `segatlas data check` and `segatlas train`: "data.label_map={0: 0, 255: 1}"'
    assert words in segatlas("check", root).stdout
    result = segatlas("check", root, "data.label_map={0: 0, 255: 1}")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == f"next: segatlas train {root} 'data.label_map={{0: 0, 255: 1}}'"


def test_the_printed_color_table_makes_the_set_clean(root: Path) -> None:
    broken.colored(root)
    output = segatlas("check", root).stdout
    override = output[output.index('"data.label_colors=') + 1 :].split('"')[0]
    assert segatlas("check", root, override).exit_code == 0


def test_the_printed_ignore_makes_the_set_clean(root: Path) -> None:
    broken.out_of_range(root)
    output = segatlas("check", root).stdout
    override = output[output.index('"data.ignore=') + 1 :].split('"')[0]
    assert override == "data.ignore=[89, 255]"
    assert segatlas("check", root, override).exit_code == 0


def test_warnings_alone_exit_0(root: Path) -> None:
    (root / "classes.txt").write_text("ground\ndisc\nnowhere\n")
    result = segatlas("check", root)
    assert result.exit_code == 0
    assert "WARNING  class never seen" in result.stdout
    assert result.stdout.splitlines()[-2] == "usable: 0 errors, 1 warning in 8 images"


def test_the_next_command_names_recipe_file_or_folder_as_they_were_given(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(f"data: {{name: folder, root: {root}}}\n")
    root.rename("unet_shapes")
    for words, told in (
        (["unet_folder", "data.root=unet_shapes"], "unet_folder data.root=unet_shapes"),
        (["--config", "a.yaml", "data.root=unet_shapes"], "data.root=unet_shapes --config a.yaml"),
        (["unet_shapes"], "./unet_shapes"),  # alone it would be the recipe of that name
    ):
        assert segatlas("check", *words).stdout.splitlines()[-1] == f"next: segatlas train {told}"
    assert "next: segatlas train" not in segatlas("check", "unet_shapes", "--split", "val").stdout


def test_no_copy_is_written_of_a_layout_that_has_to_be_changed_first(tmp_path: Path) -> None:
    cvat_masks(tmp_path / "set")
    result = segatlas("check", tmp_path / "set", "--fix", tmp_path / "copy")
    assert result.exit_code == 1
    assert "rename JPEGImages to images" in result.stdout
    assert "no copy is written: the layout comes first; do what `data check` says of it" in result.stderr
    assert not (tmp_path / "copy").exists()


def test_fix_writes_a_copy_that_is_clean(root: Path, tmp_path: Path) -> None:
    broken.black_white(root)
    broken.truncated(root)
    result = segatlas("check", root, "--fix", tmp_path / "fixed")
    assert result.exit_code == 1  # the source is still faulty
    assert "5 train, 2 val; 7 repaired, 1 left out" in result.stdout
    assert segatlas("check", tmp_path / "fixed").exit_code == 0


def test_fix_refuses_a_full_folder_before_it_reads(root: Path, tmp_path: Path) -> None:
    result = segatlas("check", root, "--fix", tmp_path)
    assert result.exit_code == 2
    assert "exists and is not empty" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "which dataset?"),
        (("nowhere",), "nowhere: no such folder, and no recipe of that name"),
        (("unet_camvit",), "nearest recipe: unet_camvid"),
        (("{root}", "--split", "dev"), "--split: got 'dev'"),
        (("{root}", "data.rot=x"), "data.rot"),
        (("{root}", "data.name=nope"), 'config error in overrides\n  override   data.name = "nope"   unknown dataset'),
        (("unet_folder", "data.root=nowhere"), "nowhere: no such folder"),
        (("{root}", "--split", "val", "--fix", "out"), "leave --split out"),
    ],
)
def test_wrong_usage_exits_2(root: Path, words: tuple[str, ...], message: str) -> None:
    result = segatlas("check", *(word.replace("{root}", str(root)) for word in words))
    assert result.exit_code == 2
    assert message in result.stderr


def test_check_takes_a_recipe(tmp_path: Path) -> None:
    write_camvid(tmp_path / "camvid")
    result = segatlas("check", "unet_camvid", f"data.root={tmp_path / 'camvid'}", "--split", "train", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["name"] == "camvid"


def test_a_folder_of_a_named_set_is_recognised(tmp_path: Path) -> None:
    write_camvid(tmp_path / "camvid")
    assert "(data.name=camvid)" in segatlas("check", tmp_path / "camvid", "--split", "val").stdout


def test_stats_prints_a_table_and_writes_json(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "stats.json"
    result = segatlas("stats", root, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(out.read_text())
    assert record == json.loads(result.stdout)
    train = record["splits"]["train"]
    assert train["images"] == 6
    label = np.stack([broken.label_of(number) for number in range(6)])
    assert [row["pixels"] for row in train["classes"]] == [(label == 0).sum(), (label == 1).sum()]
    table = segatlas("stats", root).stdout
    assert "█" in table
    assert '"model.input={mean: [' in table


def test_the_suggested_input_is_a_valid_override(root: Path) -> None:
    output = segatlas("stats", root).stdout
    override = output[output.index('"model.input=') + 1 :].split('"')[0]
    assert segatlas("check", root, override).exit_code == 0


def test_preview_draws_a_sheet_with_three_or_four_columns(root: Path, tmp_path: Path) -> None:
    assert segatlas("preview", root, "--count", 2, "--out", tmp_path / "a.png").exit_code == 0
    result = segatlas("preview", root, "--count", 2, "--out", tmp_path / "b.png", "--augmented", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["images"] == ["000", "005"]
    narrow, wide = Image.open(tmp_path / "a.png"), Image.open(tmp_path / "b.png")
    assert 1.25 < wide.width / narrow.width < 1.4
    assert len(np.unique(np.asarray(narrow))) > 50


def test_preview_names_a_bad_file_and_goes_on(root: Path, tmp_path: Path) -> None:
    (root / "classes.txt").write_text("ground\ndisc\n")
    path = broken.truncated(root)
    result = segatlas("preview", root, "data.channels=3", "--out", tmp_path / "a.png")
    assert result.exit_code == 1
    assert f"left out: {path}" in result.stdout
    assert (tmp_path / "a.png").is_file()


def test_preview_refuses_an_ending_that_is_no_image(root: Path, tmp_path: Path) -> None:
    result = segatlas("preview", root, "--out", tmp_path / "a.doc")
    assert result.exit_code == 2
    assert ".doc" in result.stderr


def test_make_shapes_makes_a_set_that_is_clean_and_the_same_again(tmp_path: Path) -> None:
    options = ("--train", 3, "--val", 2, "--test", 1, "--size", "40x48", "--seed", 5)
    assert segatlas("make-shapes", tmp_path / "a", *options).exit_code == 0
    assert segatlas("make-shapes", tmp_path / "b", *options).exit_code == 0
    first = tmp_path / "a/train/images/0000.png"
    assert first.read_bytes() == (tmp_path / "b/train/images/0000.png").read_bytes()
    assert Image.open(first).size == (48, 40)
    result = segatlas("check", tmp_path / "a", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["name"] == "shapes"
    assert segatlas("make-shapes", tmp_path / "c", "--size", "40").exit_code == 2
    assert segatlas("make-shapes", tmp_path / "c", *options, "--objects", "1-2").exit_code == 0
    assert json.loads((tmp_path / "c/shapes.json").read_text())["objects"] == [1, 2]
    for wrong in ("many", "3-2", "0-2"):
        result = segatlas("make-shapes", tmp_path / "d", "--objects", wrong)
        assert result.exit_code == 2
        assert "objects" in result.stderr


def test_convert_writes_a_folder_that_is_read_again(tmp_path: Path) -> None:
    write_camvid(tmp_path / "camvid", layout="original")
    result = segatlas("convert", tmp_path / "camvid", "--to", "folder", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["train"] > 0
    assert json.loads((tmp_path / "out/classes.json").read_text())[0]["name"] == "Sky"
    assert segatlas("convert", tmp_path / "camvid", tmp_path / "out").exit_code == 2
    assert segatlas("convert", tmp_path / "camvid", tmp_path / "small", "--resize", "12x16").exit_code == 0
    assert {Image.open(file).size for file in (tmp_path / "small").rglob("*.png")} == {(16, 12)}
    for words in (("--resize", "small"), ("--to", "coco", "--resize", "12x16")):
        assert segatlas("convert", tmp_path / "camvid", tmp_path / "x", *words).exit_code == 2
    assert segatlas("convert", tmp_path / "camvid", tmp_path / "x", "--to", "yolo").exit_code == 2


def test_convert_turns_predictions_into_cityscapes_ids(tmp_path: Path) -> None:
    broken.save(tmp_path / "in/a.png", np.array([[0, 18]], np.uint8))
    result = segatlas("convert", tmp_path / "in", tmp_path / "out", "--to", "cityscapes-ids")
    assert result.exit_code == 0, result.output
    assert np.asarray(Image.open(tmp_path / "out/a.png")).tolist() == [[7, 33]]


def test_store_shows_what_is_kept_and_clears_it(tmp_path: Path) -> None:
    folder, source = tmp_path / "store", tmp_path / "a.png"
    source.write_bytes(b"content")
    Store(folder, reserve=0).array(source, "image", lambda content: np.zeros((10, 20, 3), np.uint8))
    result = segatlas("store", "--folder", folder, "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert (shown["entries"], shown["bytes"], shown["cleared"]) == (1, 664, False)
    assert f"{folder}: 1 arrays, 0.00 GB" in result.stderr
    assert segatlas("store", "--folder", folder, "--clear").stdout.startswith("removed 1 arrays, 0.00 GB from")
    assert json.loads(segatlas("store", "--folder", folder, "--json").stdout)["entries"] == 0
