"""`data stats` and `data preview` of objects: numbers by the slow way, and the drawn columns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from fakes.coco import write_coco
from fakes.shared import shared_data
from PIL import Image
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset, targets_of
from segatlas.data.object_statistics import describe_objects
from segatlas.drawing.maps import LINE


def segatlas(*words: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, words)])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco")


def test_objects_are_counted_by_class_size_and_image_as_by_hand(root):
    data = create_dataset(DataConfig(name="coco", root=str(root)), "train", target="InstancesTarget")
    found = describe_objects(data)
    truths = [data.truth(index) for index in range(len(data))]
    for kind, one in enumerate(found.classes):
        own = [(int(mask.sum()), bool(crowd)) for truth in truths
               for mask, label, crowd in zip(truth.masks, truth.classes, truth.crowd, strict=True)
               if label == kind]  # fmt: skip
        areas = sorted(area for area, crowd in own if not crowd)
        assert (one.objects, one.crowds) == (len(areas), len(own) - len(areas))
        assert one.areas == ((areas[0], int(np.median(areas)), areas[-1]) if areas else None)
        assert (one.small, one.medium, one.large) == (len(areas), 0, 0)
    assert found.per_image == (0, 2, 2)
    assert (found.without, found.images, found.objects) == (1, 4, 6)


def test_stats_tells_of_objects_also_where_one_split_has_masks_and_another_has_none(root):
    result = segatlas("stats", root, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout.splitlines()[-1])["splits"]
    assert record["train"]["objects"]["objects"] == 6
    row = next(one for one in record["train"]["objects"]["classes"] if one["class"] == "dog")
    assert (row["objects"], row["crowds"], row["area"]) == (0, 3, None)
    text = " ".join(segatlas("stats", root).stdout.split())
    assert "train: 6 objects in 4 images in an image 0 / 2 / 2 (fewest / median / most); 1 without any" in text
    for path in (root / "annotations").glob("panoptic_train*"):
        path.rename(path.with_name(f"unused_{path.name}"))
    config = DataConfig(name="coco", root=str(root))
    assert targets_of(config, "train") == ("InstancesTarget",)
    assert targets_of(config, "val")[0] == "SemanticTarget"
    assert segatlas("stats", root).exit_code == 0


def test_preview_draws_objects_and_segments_each_with_lines_around_it(root, tmp_path):
    result = segatlas("preview", root, "--count", 2, "--out", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    columns = np.array_split(sheet, 5, axis=1)
    lines = [int((np.abs(column.astype(int) - LINE).max(axis=2) < 40).sum()) for column in columns]
    assert min(lines[3], lines[4]) > 100 > max(lines[:3])


@pytest.mark.parametrize(
    ("name", "split", "objects", "crowds"), [("coco", "train", 284, 4), ("cityscapes_small", "val", 7, 0)]
)
def test_real_samples_have_the_objects_that_their_files_list(name, split, objects, crowds):
    root = shared_data(f"samples/{name}")
    data = create_dataset(DataConfig(name=name.split("_")[0], root=str(root)), split, target="InstancesTarget")
    found = describe_objects(data)
    assert (found.objects, sum(one.crowds for one in found.classes)) == (objects, crowds)
    if name == "coco":
        listed = json.loads((root / "annotations" / "instances_train2017.json").read_text())["annotations"]
        assert objects == sum(not one["iscrowd"] for one in listed)
        assert crowds == sum(one["iscrowd"] for one in listed)
