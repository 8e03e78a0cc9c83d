"""Cityscapes, ADE20K and Penn-Fudan give objects and segments from the files that they publish."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes.ade20k import write_ade20k, write_lists, write_track
from fakes.cityscapes import write_cityscapes, write_instance_ids, write_panoptic
from fakes.shared import shared_data
from PIL import Image
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.checks import examine


def opened(name: str, root: Path, target: str, split: str = "train"):
    return create_dataset(DataConfig(name=name, root=str(root)), split, target=target)


def test_instance_ids_of_cityscapes_are_things_crowds_and_stuff(tmp_path):
    root = write_cityscapes(tmp_path, size=(32, 64))
    ids = np.full((32, 64), 7, np.uint16)  # road
    ids[:8] = 3  # out of the region of interest
    ids[10:14, 4:9], ids[10:14, 20:29], ids[20:24, 4:9], ids[20:24, 30:40] = 24001, 26000, 24, 29002
    for path in (root / "gtFine").rglob("*_labelIds.png"):
        Image.fromarray(ids).save(path.with_name(path.name.replace("labelIds", "instanceIds")))
    objects = opened("cityscapes", root, "InstancesTarget")
    assert objects.classes == ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    target = objects.load(0).target
    assert (target.classes.tolist(), target.crowd.tolist()) == ([0, 0, 2], [True, False, False])
    assert np.array_equal(target.masks, ids == np.array([24, 24001, 26000])[:, None, None])
    segments = opened("cityscapes", root, "SegmentsTarget").load(0).target
    assert segments.classes.tolist() == [0, 11, 11, 13]
    assert segments.things.tolist() == [False, True, True, True]
    assert segments.crowd.tolist() == [False, True, False, False]
    assert np.array_equal(segments.ids == -1, (ids == 3) | (ids == 29002))  # a caravan is not evaluated
    assert examine(root).ok


def test_the_instance_track_of_ade20k_gives_objects_and_with_masks_segments(tmp_path):
    root = write_track(write_ade20k(tmp_path))
    objects = opened("ade20k", root, "InstancesTarget")
    assert (len(objects.classes), objects.classes[3]) == (100, "person")
    target = objects.load(0).target
    assert (target.classes.tolist(), target.masks.sum(axis=(1, 2)).tolist()) == ([3, 3, 99], [12, 9, 72])
    data = opened("ade20k", root, "SegmentsTarget")
    segments = data.load(0).target
    assert (len(data.classes), sum(data.things)) == (150, 100)
    assert segments.classes[:2].tolist() == [data.classes.index("person")] * 2
    assert not segments.things[3:].any()
    label = opened("ade20k", root, "SemanticTarget").load(0).label
    for row, kind in enumerate(segments.classes.tolist()):
        if row > 2:
            assert (label[segments.ids == row] == kind).all()


def truths_of(data):
    """Return class names, crowds and pixels of all objects or segments of each image, in an order of their own."""
    found = {}
    for index in range(len(data)):
        target = data.load(index).target
        masks = target.masks if hasattr(target, "masks") else [target.ids == row for row in range(len(target.classes))]
        rows = zip(masks, target.classes.tolist(), target.crowd.tolist(), strict=True)
        found[data.key(index)] = sorted((data.classes[kind], crowd, mask.tobytes()) for mask, kind, crowd in rows)
    return found


@pytest.mark.parametrize("train_ids", [(), ("train", "val"), ("val",)])
def test_panoptic_files_of_cityscapes_say_what_the_maps_of_objects_say(tmp_path, train_ids):
    root = write_panoptic(write_instance_ids(write_cityscapes(tmp_path / "set")), train_ids=train_ids)
    kinds = ("InstancesTarget", "SegmentsTarget")
    wanted = {kind: truths_of(opened("cityscapes", root, kind)) for kind in kinds}
    assert {crowd for _, crowd, _ in wanted["SegmentsTarget"]["aachen/aachen_000000_000019"]} == {False, True}
    for path in (root / "gtFine").rglob("*_instanceIds.png"):
        path.unlink()
    for kind in kinds:
        data = opened("cityscapes", root, kind)
        assert truths_of(data) == wanted[kind]
    assert (len(data.classes), sum(data.things)) == (19, 8)
    assert not [one for one in examine(root).errors if one.kind != "leakage"]
    for form in ("coco", "panoptic", "instances"):
        result = CliRunner().invoke(app, ["data", "convert", str(root), str(tmp_path / form), "--to", form])
        assert result.exit_code == 0, result.output
        assert examine(tmp_path / form).ok


def test_of_two_panoptic_files_of_cityscapes_the_one_of_label_ids_is_read(tmp_path):
    root = write_instance_ids(write_cityscapes(tmp_path))
    write_panoptic(write_panoptic(root), train_ids=("train", "val"))
    for path in (root / "gtFine").rglob("*_instanceIds.png"):
        path.unlink()
    before = truths_of(opened("cityscapes", root, "SegmentsTarget"))
    for path in (root / "gtFine").glob("*_trainId.json"):
        path.write_text("{")
    assert truths_of(opened("cityscapes", root, "SegmentsTarget")) == before
    assert not [one for one in examine(root).errors if one.kind != "leakage"]


def test_a_category_that_cityscapes_has_not_is_told(tmp_path):
    root = write_panoptic(write_instance_ids(write_cityscapes(tmp_path)))
    for path in (root / "gtFine").rglob("*_instanceIds.png"):
        path.unlink()
    path = root / "gtFine/cityscapes_panoptic_train.json"
    path.write_text(path.read_text().replace('"name": "road"', '"name": "street"'))
    assert "'street'" in next(one.fault for one in examine(root).errors if one.kind == "unknown_class")


def test_lists_of_ade20k_say_what_masks_and_track_say(tmp_path):
    root = write_track(write_ade20k(tmp_path / "set"))
    kinds = ("InstancesTarget", "SegmentsTarget")
    wanted = {kind: truths_of(opened("ade20k", root, kind)) for kind in kinds}
    write_lists(root)
    for kind in kinds:
        data = opened("ade20k", root, kind)
        assert truths_of(data) == wanted[kind]
    assert (len(data.classes), sum(data.things)) == (150, 100)
    assert not [one for one in examine(root).errors if one.kind != "leakage"]


def test_real_objects_of_cityscapes_and_penn_fudan_are_read():
    streets = shared_data("samples/cityscapes_small")
    target = opened("cityscapes", streets, "InstancesTarget", "val").load(0).target
    assert target.classes.tolist() == [0, 0, 0, 0, 2, 2, 2]
    segments = opened("cityscapes", streets, "SegmentsTarget", "val").load(0).target
    label = opened("cityscapes", streets, "SemanticTarget", "val").load(0).label
    seen = segments.ids >= 0
    assert np.array_equal(segments.classes[segments.ids[seen]], label[seen])
    assert np.array_equal(seen, label != 255)
    people = opened("pennfudan", shared_data("samples/pennfudan"), "InstancesTarget").load(0).target
    assert people.classes.tolist() == [1, 1, 1]
