"""COCO's files give objects, segments and classes; what is wrong with them is refused, and told by `data check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.broken_coco import EMPTY, FAULTS, MAPS, OBJECTS, SIZE, add, again, new_pixel, one_object, set_key
from fakes.coco import CATEGORIES, change, scene, write_coco
from fakes.shared import shared_data
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.config.schema import DataConfig
from segatlas.data import Store, create_dataset
from segatlas.data.checks import examine
from segatlas.data.formats.coco import read_coco
from segatlas.errors import DataError


def opened(root: Path, target: str, split: str = "train", **own: Any):
    return create_dataset(DataConfig(name="coco", root=str(root), **own), split, target=target)


def test_objects_have_the_pixels_classes_and_crowds_of_the_scene(tmp_path):
    data = opened(write_coco(tmp_path), "InstancesTarget")
    assert data.classes == ("cat", "dog", "boat")  # by rising category 3, 17, 90
    assert data.things == (True, True, True)
    for index in range(3):
        ids, _ = scene(index, SIZE)
        target = data.load(index).target
        assert target.classes.tolist() == [0, 2, 1]
        assert target.crowd.tolist() == [False, False, True]
        assert np.array_equal(target.masks, ids == np.array([300, 66051, 9])[:, None, None])


def test_an_image_without_objects_has_none(tmp_path):
    data = opened(write_coco(tmp_path), "InstancesTarget")
    assert data.load(3).target.masks.shape == (0, *SIZE)


def test_segments_and_classes_of_pixels_are_those_of_the_map(tmp_path):
    root = write_coco(tmp_path)
    ids, _ = scene(0, SIZE)
    data = opened(root, "SegmentsTarget")
    assert (data.classes, data.palette[1], data.things) == (
        tuple(one["name"] for one in CATEGORIES),
        (0, 80, 100),
        (True, True, True, False, False),
    )
    target = data.load(0).target
    assert target.classes.tolist() == [4, 3, 0, 2, 1]
    assert target.things.tolist() == [False, False, True, True, True]
    assert target.crowd.tolist() == [False, False, False, False, True]
    rows = {0: -1, 70001: 0, 70002: 1, 300: 2, 66051: 3, 9: 4}
    assert np.array_equal(target.ids, np.vectorize(rows.get)(ids))
    assert target.ids.dtype == np.int32
    kinds = {0: 255, 70001: 4, 70002: 3, 300: 0, 66051: 2, 9: 1}
    assert np.array_equal(opened(root, "SemanticTarget").load(0).label, np.vectorize(kinds.get)(ids))


def test_the_things_of_a_map_are_the_objects_where_no_file_lists_them(tmp_path):
    both, maps = write_coco(tmp_path / "both"), write_coco(tmp_path / "maps", objects=False)
    for index in range(4):
        first, second = (opened(root, "InstancesTarget").load(index).target for root in (both, maps))
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_file_of_objects_alone_gives_no_other_truth(tmp_path):
    root = write_coco(tmp_path, maps=False)
    assert len(opened(root, "InstancesTarget")) == 4
    with pytest.raises(DataError, match="split 'train' gives InstancesTarget, not the SemanticTarget"):
        opened(root, "SemanticTarget")
    assert examine(root).ok


@pytest.mark.parametrize("target", ["InstancesTarget", "SegmentsTarget", "SemanticTarget"])
def test_a_store_gives_the_same_truths(tmp_path, target):
    root = write_coco(tmp_path / "data")
    cfg = DataConfig(name="coco", root=str(root))
    plain = create_dataset(cfg, "train", target=target)
    for _ in range(2):
        kept = create_dataset(cfg, "train", store=Store(tmp_path / "store"), target=target)
        for index in range(4):
            pairs = zip(plain.load(index).target, kept.load(index).target, strict=True)
            assert all(np.array_equal(a, b) and getattr(a, "dtype", 0) == getattr(b, "dtype", 0) for a, b in pairs)
    assert Store(tmp_path / "store").usage().entries > 4


def test_overlapping_objects_come_back_from_a_store_as_bits(tmp_path):
    root = write_coco(tmp_path / "data")
    change(root / OBJECTS, lambda content: content["annotations"].append(again(content["annotations"][0])))
    cfg = DataConfig(name="coco", root=str(root))
    masks = [create_dataset(cfg, "train", store=Store(tmp_path / "store"), target="InstancesTarget").load(0).target[0]
             for _ in range(2)]  # fmt: skip
    assert masks[0].shape == (4, *SIZE)
    assert np.array_equal(masks[0], masks[1])
    assert np.array_equal(masks[1][3], masks[1][0])


@pytest.mark.parametrize("case", FAULTS)
def test_check_tells_what_is_wrong(tmp_path, case):
    breaks, kind, severity, text = FAULTS[case]
    root = write_coco(tmp_path)
    breaks(root)
    if case == "an object twice":
        change(root / OBJECTS, lambda content: content["annotations"].append({**one_object(), "id": 78}))
    found = [one for one in examine(root).findings if one.kind == kind]
    assert found
    assert {one.severity for one in found} == {severity}
    assert any(text in told for one in found for told in (one.fault, *one.details))


@pytest.mark.parametrize("case", [case for case, (_, _, severity, _) in FAULTS.items() if severity == "error"])
def test_training_never_takes_what_check_calls_an_error(tmp_path, case):
    breaks, kind, _, text = FAULTS[case]
    root = write_coco(tmp_path)
    breaks(root)
    told = {"duplicate_id", "unknown_class", "unknown_image", "list", "annotation_file"}
    if kind in told:
        return  # the look before training tells of the whole file, see the test above
    errors = []
    for target in ("InstancesTarget", "SegmentsTarget"):
        data = opened(root, target)
        for index in range(len(data)):
            try:
                data.load(index)
            except DataError as error:
                errors.append(str(error))
    assert errors
    assert any(text in error or kind == "size_mismatch" for error in errors)


def test_an_object_without_a_pixel_is_left_out(tmp_path):
    root = write_coco(tmp_path)
    add(segmentation=EMPTY)(root)
    assert opened(root, "InstancesTarget").load(0).target.classes.tolist() == [0, 2, 1]


def test_several_years_are_refused_until_one_is_named(tmp_path):
    write_coco(tmp_path, year="2014")
    write_coco(tmp_path, year="2017", counts={"train": 2})
    with pytest.raises(DataError, match=r"of several years: 2014, 2017; say data\.year"):
        opened(tmp_path, "InstancesTarget")
    assert len(opened(tmp_path, "InstancesTarget", year="2014")) == 4


def test_two_thousand_objects_are_read(tmp_path):
    root = write_coco(tmp_path)
    template = one_object()
    cells = [{**template, "id": 10000 + n, "segmentation": [[x, y, x + 1, y, x + 1, y + 1, x, y + 1]]}
             for n in range(2000) for x, y in [(n % 48, n // 48 % 32)]]  # fmt: skip
    change(root / OBJECTS, lambda content: content["annotations"].extend(cells))
    target = opened(root, "InstancesTarget").load(0).target
    assert target.masks.shape == (2003, *SIZE)
    assert target.masks[3:].sum(axis=(1, 2)).tolist() == [1] * 2000


def test_what_is_no_file_of_cocos_form_is_refused(tmp_path):
    for content in ("[]", "{}", '{"images": [], "annotations": {}, "categories": []}', "{" * 100000):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(DataError):
            read_coco(tmp_path / "a.json")


def test_real_objects_segments_and_areas_are_read():
    root = shared_data("samples/coco")
    train, val = opened(root, "InstancesTarget"), opened(root, "SegmentsTarget", "val")
    assert (len(train), len(train.classes), len(val.classes), sum(val.things)) == (32, 80, 133, 80)
    total = [train.load(index).target for index in range(32)]
    assert sum(len(one.classes) for one in total) == 288
    assert sum(int(one.crowd.sum()) for one in total) == 4
    listed = json.loads((root / "annotations/panoptic_val2017.json").read_text())["annotations"]
    areas = {one["file_name"][:-4]: [info["area"] for info in one["segments_info"]] for one in listed}
    for index in range(2):
        target = val.load(index).target
        assert np.bincount(target.ids[target.ids >= 0]).tolist() == areas[val.key(index)]
    assert opened(root, "InstancesTarget", "val").load(0).target.masks.shape[0] == 15


def test_stats_and_preview_show_objects_where_there_are_no_masks(tmp_path):
    root = write_coco(tmp_path / "data", maps=False)
    result = CliRunner().invoke(app, ["data", "stats", str(root), "--json"])
    assert result.exit_code == 0, result.output
    classes = json.loads(result.stdout.splitlines()[-1])["splits"]["train"]["classes"]
    areas = [sum(int((scene(index, SIZE)[0] == number).sum()) for index in range(4)) for number in (300, 9, 66051)]
    assert [one["pixels"] for one in classes] == areas
    result = CliRunner().invoke(app, ["data", "preview", str(root), "--out", str(tmp_path / "sheet.png")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "sheet.png").is_file()


def test_a_repaired_copy_of_panoptic_maps_has_masks_and_things_and_leaves_out_what_cannot_be_read(tmp_path):
    root, out = write_coco(tmp_path / "set", objects=False), tmp_path / "fixed"
    new_pixel(root)
    set_key(MAPS, "area", 4)(root)
    result = CliRunner().invoke(app, ["data", "check", str(root), "--fix", str(out)])
    assert result.exit_code == 1, result.output
    files = json.loads((out / "fixes.json").read_text())["files"]
    (left_out,) = [one for one in files if "left_out" in one]
    assert "segment 197121 of the map is not in its table" in left_out["left_out"]
    assert not [one for one in examine(out).errors if one.kind != "leakage"]
    made = create_dataset(DataConfig(name="folder", root=str(out)), "train", target="InstancesTarget")
    data = opened(root, "InstancesTarget")
    kept = {data.key(index): index for index in range(len(data))}
    for index in range(len(made)):
        one, other = made.load(index).target, data.load(kept[made.key(index)]).target
        assert np.array_equal(one.masks, other.masks)
        assert [made.classes[kind] for kind in one.classes] == [data.classes[kind] for kind in other.classes]
        assert np.array_equal(one.crowd, other.crowd)
