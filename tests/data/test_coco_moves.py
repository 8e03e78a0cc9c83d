"""COCO's files in the layouts of tools: the printed commands, carried out as they stand, make a readable set."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from fakes import annotation_tools as tools
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.datasets.coco_moves import FORM

ONE_FILE = {
    "cvat": tools.coco_cvat,
    "cvat_flat": tools.coco_cvat_flat,
    "label_studio": tools.coco_label_studio,
    "label_studio_windows": tools.coco_label_studio_windows,
    "next_to_images": tools.coco_next_to_images,
    "in_one_folder": tools.coco_in_one_folder,
}


def segatlas(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)])


def carry_out(text: str) -> None:
    """Run the commands that a message holds in a shell, each line as it is printed."""
    lines = [line.strip() for line in text.splitlines() if re.match(r"\s*(mkdir|mv) ", line)]
    assert lines
    for line in lines:
        subprocess.run(["sh", "-ec", line], check=True)


@pytest.mark.parametrize("layout", ONE_FILE)
def test_the_printed_commands_make_a_set_of_one_file_readable_with_val_held_out(tmp_path: Path, layout: str) -> None:
    root = tmp_path / "my set (1)"  # a shell would take it apart
    ONE_FILE[layout](root)
    carry_out(segatlas("data", "check", root).stdout)
    result = segatlas("data", "check", root, "--json")
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)["splits"]) == {"train"}
    lengths = [len(create_dataset(DataConfig(name="folder", root=str(root)), split, target="InstancesTarget"))
               for split in ("train", "val")]  # fmt: skip
    assert lengths in ([2, 1], [3, 1])


def test_the_printed_commands_make_roboflows_splits_readable_valid_as_val(tmp_path: Path) -> None:
    tools.coco_roboflow(tmp_path / "set")
    carry_out(segatlas("data", "check", tmp_path / "set").stdout)
    result = segatlas("data", "check", tmp_path / "set", "--json")
    assert result.exit_code == 0, result.output
    assert {split: one["images"] for split, one in json.loads(result.stdout)["splits"].items()} == {
        "train": 3,
        "val": 3,
    }


@pytest.mark.parametrize("words", [("train", "{root}", "--dry-run"), ("train", "{root}"), ("data", "stats", "{root}")])
def test_what_other_commands_print_can_be_carried_out_too(tmp_path: Path, words: tuple[str, ...]) -> None:
    tools.coco_cvat(tmp_path / "set")
    result = segatlas(*(word.replace("{root}", str(tmp_path / "set")) for word in words))
    assert result.exit_code == 1
    carry_out(result.stderr)
    assert segatlas("data", "check", tmp_path / "set").exit_code == 0


def two_files_of_one_split(root: Path) -> None:
    tools.coco_next_to_images(root)
    (root / "again.json").write_text((root / "labels.json").read_text())


def without_images(root: Path) -> None:
    tools.coco_next_to_images(root)
    for path in (root / "images").iterdir():
        path.rename(path.with_suffix(".other"))


@pytest.mark.parametrize("write", [two_files_of_one_split, without_images, tools.coco_untouched])
def test_where_it_is_not_clear_what_belongs_together_the_form_alone_is_told(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    write(tmp_path / "set")
    repair = json.loads(segatlas("data", "check", tmp_path / "set", "--json").stdout)["findings"][0]["repair"]
    assert repair == FORM
