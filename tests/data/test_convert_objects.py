"""`data convert` takes objects and segments through every form without changing a pixel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fakes.coco import change, write_coco
from fakes.pennfudan import write_pennfudan
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset, describe_layout
from segatlas.data.checks import data_config, examine
from segatlas.data.shapes import make_shapes

WRITERS = {
    "coco": lambda root: write_coco(root),
    "coco, objects": lambda root: write_coco(root, maps=False),
    "pennfudan": lambda root: write_pennfudan(root),
    "shapes": lambda root: make_shapes(root, train=3, val=2, test=1, size=(48, 64)),
}


def convert(source: Path, out: Path, form: str) -> Path:
    result = CliRunner().invoke(app, ["data", "convert", str(source), str(out), "--to", form, "--json"])
    assert result.exit_code == 0, result.output
    return out


def objects(root: Path, split: str) -> dict[str, list[tuple[str, bool, bytes]]]:
    """Return class, crowd and pixels of the objects of each image, in an order of their own."""
    data = create_dataset(data_config(root), split, target="InstancesTarget")
    found = {}
    for index in range(len(data)):
        target = data.load(index).target
        rows = zip(target.masks, target.classes.tolist(), target.crowd.tolist(), strict=True)
        found[Path(data.key(index)).name] = sorted((data.classes[k], many, m.tobytes()) for m, k, many in rows)
    return found


def segments(root: Path, split: str) -> dict[str, list[tuple[str, bool, bool, bytes]]]:
    data = create_dataset(data_config(root), split, target="SegmentsTarget")
    found = {}
    for index in range(len(data)):
        ids, kinds, things, crowd = data.load(index).target
        rows = [
            (data.classes[kinds[r]], bool(things[r]), bool(crowd[r]), (ids == r).tobytes()) for r in range(len(kinds))
        ]
        found[Path(data.key(index)).name] = sorted(rows)
    return found


@pytest.mark.parametrize("name", WRITERS)
def test_objects_stay_as_they_are_through_all_forms(tmp_path, name):
    WRITERS[name](tmp_path / "source")
    coco = convert(tmp_path / "source", tmp_path / "coco", "coco")
    maps = convert(coco, tmp_path / "maps", "instances")
    again = convert(maps, tmp_path / "again", "coco")
    assert (describe_layout(coco), describe_layout(maps)) == ("coco", "folder")
    for split in ("train", "val"):
        wanted = objects(tmp_path / "source", split)
        assert any(wanted.values())
        for root in (coco, maps, again):
            assert objects(root, split) == wanted
    for root in (coco, maps, again):
        assert not [one for one in examine(root).errors if one.kind != "leakage"]


@pytest.mark.parametrize("name", ["coco", "pennfudan", "shapes"])
def test_segments_stay_as_they_are_and_their_things_are_the_objects(tmp_path, name):
    WRITERS[name](tmp_path / "source")
    maps = convert(tmp_path / "source", tmp_path / "maps", "panoptic")
    again = convert(maps, tmp_path / "again", "panoptic")
    coco = convert(again, tmp_path / "coco", "coco")
    for split in ("train", "val"):
        wanted = segments(tmp_path / "source", split)
        for root in (maps, again):
            assert segments(root, split) == wanted
        assert objects(coco, split) == objects(tmp_path / "source", split)
    assert not [one for one in examine(maps).findings if one.kind == "area_mismatch"]


def test_masks_and_objects_of_a_folder_become_panoptic_maps(tmp_path):
    folder = convert(WRITERS["shapes"](tmp_path / "source"), tmp_path / "folder", "folder")
    assert describe_layout(folder) == "folder"
    things = "[disc, square, triangle, ring, bar, cross]"
    words = [
        "data",
        "convert",
        str(folder),
        str(tmp_path / "maps"),
        "--to",
        "panoptic",
        f"data.instances.things={things}",
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    for split in ("train", "val"):
        assert segments(tmp_path / "maps", split) == segments(tmp_path / "source", split)
        assert objects(folder, split) == objects(tmp_path / "source", split)


def test_objects_of_a_smaller_copy_are_those_of_the_nearest_pixels(tmp_path):
    source = WRITERS["shapes"](tmp_path / "source")
    words = ["data", "convert", str(source), str(tmp_path / "small"), "--resize", "8x10"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    before, after = (
        create_dataset(data_config(root), "train", target="InstancesTarget") for root in (source, tmp_path / "small")
    )
    lost = 0
    for index in range(len(before)):
        truth, found = before.truth(index), after.truth(index)
        height, width = truth.masks.shape[1:]
        rows, columns = (np.arange(8) * 2 + 1) * height // 16, (np.arange(10) * 2 + 1) * width // 20
        masks = truth.masks[:, rows][:, :, columns]
        seen = masks.any(axis=(1, 2))
        lost += (~seen).sum()
        wanted = sorted((before.classes[k], m.tobytes()) for m, k in zip(masks[seen], truth.classes[seen], strict=True))
        rows = zip(found.masks, found.classes, strict=True)
        assert sorted((after.classes[k], m.tobytes()) for m, k in rows) == wanted
    assert lost


def test_overlapping_objects_become_a_file_each_and_come_back(tmp_path):
    root = write_coco(tmp_path / "source", maps=False)
    path = root / "annotations/instances_train2017.json"
    change(
        path, lambda content: content["annotations"].append({**content["annotations"][0], "id": 999, "category_id": 17})
    )
    maps = convert(root, tmp_path / "maps", "instances")
    assert len(list((maps / "train/instances/000000000000").iterdir())) == 4
    assert objects(maps, "train") == objects(root, "train")
    back = convert(maps, tmp_path / "back", "coco")
    assert objects(back, "train") == objects(root, "train")
    result = CliRunner().invoke(app, ["data", "convert", str(root), str(tmp_path / "x"), "--to", "panoptic"])
    assert result.exit_code == 1
    assert not (tmp_path / "x").exists()


def test_an_image_without_the_truth_is_left_out(tmp_path):
    root = write_coco(tmp_path / "source")
    content = json.loads((root / "annotations/instances_val2017.json").read_text())
    out = convert(root, tmp_path / "out", "coco")
    written = json.loads((out / "annotations/instances_val.json").read_text())
    assert len(written["images"]) == len(content["images"])
    assert [one["name"] for one in written["categories"]] == ["cat", "dog", "boat"]
    assert DataConfig(name="coco", root=str(out)).name == describe_layout(out)


def test_a_split_without_the_truth_is_left_out_and_a_folder_takes_objects_without_masks(tmp_path):
    root = write_coco(tmp_path / "source")
    for path in (root / "annotations").glob("panoptic_train*"):
        path.rename(path.with_name(f"unused_{path.name}"))
    maps = convert(root, tmp_path / "maps", "panoptic")
    assert segments(maps, "val") == segments(root, "val")
    assert not (maps / "train").exists()
    folder = convert(root, tmp_path / "folder", "folder")
    assert not (folder / "train/masks").exists()
    assert (folder / "val/masks").is_dir()
    for split in ("train", "val"):
        assert objects(folder, split) == objects(root, split)
    assert not [one for one in examine(folder).errors if one.kind != "leakage"]


@pytest.mark.parametrize("form", ["coco", "instances", "folder"])
def test_objects_of_no_class_are_not_lost_on_the_way(tmp_path, form):
    root = write_coco(tmp_path / "source", maps=form == "folder")
    path = root / "annotations/instances_train2017.json"
    change(path, lambda content: content["annotations"][0].update(category_id=4))
    result = CliRunner().invoke(app, ["data", "convert", str(root), str(tmp_path / "x"), "--to", form])
    assert result.exit_code == 1
    assert "would be lost: annotation 0 is of category 4" in " ".join(result.output.split())
    assert not (tmp_path / "x").exists()
