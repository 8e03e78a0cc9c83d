"""Masks of colours without a table are told as such by every command, with the words that name the colours."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from fakes import broken
from fakes.annotation_tools import CVAT_COLORS, cvat_masks
from fakes.model import make_model
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.datasets.color_tables import color_fault, named_colors, table_words
from segatlas.errors import DataError


def segatlas(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)])


def overrides(text: str) -> list[str]:
    return re.findall(r'"(data\.[^"]*)"', text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """CVAT's masks under our names; one of them shows nothing but the background."""
    cvat_masks(tmp_path / "set")
    (tmp_path / "set/JPEGImages").rename(tmp_path / "set/images")
    (tmp_path / "set/SegmentationClass").rename(tmp_path / "set/masks")
    broken.save(tmp_path / "set/masks/000.png", np.zeros((*broken.SIZE, 3), np.uint8))
    return tmp_path / "set"


@pytest.mark.parametrize("with_names", [True, False])
@pytest.mark.parametrize(
    "words",
    [
        ("data", "check", "{root}"),
        ("data", "stats", "{root}"),
        ("train", "{root}", "--dry-run"),
        ("train", "{root}"),
    ],
    ids=lambda words: " ".join(words),
)
def test_a_black_mask_among_colours_hides_the_colours_from_no_command(
    root: Path, words: tuple[str, ...], with_names: bool
) -> None:
    if not with_names:
        (root / "labelmap.txt").unlink()
    result = segatlas(*(word.format(root=root) for word in words))
    assert result.exit_code == 1
    assert "3 colours instead of class indices" in result.output
    assert "add to `segatlas data check` and `segatlas train`: \"data.label_colors={'0,0,0': 0, " in result.output
    checked = segatlas("data", "check", root, *overrides(result.output), "--json")
    assert checked.exit_code == 0, checked.output
    names = list(CVAT_COLORS) if with_names else ["class_0", "class_1", "class_2"]
    assert json.loads(checked.stdout)["classes"] == names


def test_eval_which_knows_the_classes_says_who_prints_the_table(root: Path, tmp_path: Path) -> None:
    make_model(tmp_path / "net")
    result = segatlas("eval", tmp_path / "net", "--data", root, "--device", "cpu")
    assert result.exit_code == 1
    assert "data.label_colors={'0,0,0': 0, ...}; `segatlas data check` prints the whole table" in result.stderr


def test_colours_of_grey_and_white_are_neither_codes_nor_ignored(root: Path) -> None:
    (root / "labelmap.txt").unlink()
    for number in (1, 2, 3):
        broken.save(root / f"masks/00{number}.png", np.full((*broken.SIZE, 3), 255 if number < 3 else 128, np.uint8))
    with pytest.raises(DataError, match="is a colour mask, as 6 of 6 are: 5 colours instead"):
        create_dataset(DataConfig(root=str(root)), "train")


def test_one_colour_mask_among_indices_is_told_as_that_file(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path / "set")
    broken.save(root / "train/masks/001.png", broken.COLORS[broken.label_of(1)])
    assert color_fault(sorted(root.rglob("masks/*.png")), root) is None
    assert len(create_dataset(DataConfig(root=str(root)), "train").classes) == 2


def test_masks_that_cannot_be_read_are_told_where_the_others_show_one_class(tmp_path: Path) -> None:
    root = broken.write_sound(tmp_path / "set")
    for path in sorted(root.rglob("masks/*.png"))[1:]:
        path.write_bytes(b"")
    broken.save(sorted(root.rglob("masks/*.png"))[0], np.zeros(broken.SIZE, np.uint8))
    with pytest.raises(DataError, match=r"the file is empty.*; 7 of 8 masks cannot be read, and the others show only"):
        create_dataset(DataConfig(root=str(root)), "train")


def test_a_repaired_copy_has_the_names_and_colours_of_a_labelmap(root: Path, tmp_path: Path) -> None:
    assert "repaired copy" in segatlas("data", "check", root, "--fix", tmp_path / "copy").stdout
    kept = json.loads((tmp_path / "copy/classes.json").read_text())
    assert {entry["name"]: tuple(entry["color"]) for entry in kept} == CVAT_COLORS
    label = create_dataset(DataConfig(root=str(tmp_path / "copy")), "train").load(0).label
    assert label is not None
    assert segatlas("data", "check", tmp_path / "copy").exit_code == 0


def test_names_of_the_recipe_have_the_colours_of_a_labelmap_in_whatever_order(root: Path) -> None:
    printed = segatlas("data", "check", root, "data.classes=[tree, car, background]").stdout
    assert "\"data.label_colors={'0,0,0': 2, '30,180,90': 0, '200,30,60': 1}\"" in printed


def test_a_labelmap_says_nothing_of_masks_of_indices_or_of_other_colours(root: Path) -> None:
    assert named_colors(root) is not None
    (root / "labelmap.txt").write_text("a:0,0,0::\nb:1,2,3::\n")
    assert "3 classes: class_0, class_1, class_2" in segatlas("data", "check", root).stdout
    (root / "labelmap.txt").write_text("a:0,0,0::\na:1,2,3::\n")
    assert named_colors(root) is None
    (root / "labelmap.txt").write_text("c:0,0,0::\nb:1,2,3::\na:9,9,9::\n")
    for number in range(6):
        broken.save(root / f"masks/00{number}.png", broken.label_of(number, 3))
    assert "3 classes: class_0, class_1, class_2" in segatlas("data", "check", root).stdout


def test_names_with_an_apostrophe_are_read_back(root: Path) -> None:
    words = overrides(table_words({(0, 0, 0): 0, (200, 30, 60): 1, (30, 180, 90): 2}, ["ground", "l'eau", "a, b"]))
    result = segatlas("data", "check", root, *words, "--json")
    assert json.loads(result.stdout)["classes"] == ["ground", "l'eau", "a, b"]
