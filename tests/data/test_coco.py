"""COCO's files give objects, segments and classes; what is wrong with them is refused, and told by `data check`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.coco import CATEGORIES, change, scene, write_coco
from fakes.shared import shared_data
from PIL import Image
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.config.schema import DataConfig
from segatlas.data import Store, create_dataset
from segatlas.data.checks import examine
from segatlas.data.formats.coco import read_coco
from segatlas.errors import DataError
from segatlas.structures.rle import Rle

SIZE = (32, 48)
OBJECTS, MAPS = "annotations/instances_train2017.json", "annotations/panoptic_train2017.json"


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
            assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    assert Store(tmp_path / "store").usage().entries > 4


def test_overlapping_objects_come_back_from_a_store_as_bits(tmp_path):
    root = write_coco(tmp_path / "data")
    change(root / OBJECTS, lambda content: content["annotations"].append(_again(content["annotations"][0])))
    cfg = DataConfig(name="coco", root=str(root))
    masks = [create_dataset(cfg, "train", store=Store(tmp_path / "store"), target="InstancesTarget").load(0).target[0]
             for _ in range(2)]  # fmt: skip
    assert masks[0].shape == (4, *SIZE)
    assert np.array_equal(masks[0], masks[1])
    assert np.array_equal(masks[1][3], masks[1][0])


def _again(one: dict[str, Any]) -> dict[str, Any]:
    return {**one, "id": 999}


def _add(**fields: Any) -> Callable[[Path], None]:
    return lambda root: change(root / OBJECTS, lambda content: content["annotations"].append({**_object(), **fields}))


def _object() -> dict[str, Any]:
    corners = [[2.0, 2.0, 8.0, 2.0, 8.0, 9.0, 2.0, 9.0]]
    return {"id": 77, "image_id": 5000, "category_id": 3, "iscrowd": 0, "segmentation": corners, "area": 42,
            "bbox": [2, 2, 6, 7]}  # fmt: skip


def _set(file: str, key: str, value: Any) -> Callable[[Path], None]:
    def edit(content: dict[str, Any]) -> None:
        entry = content["annotations"][0]
        (entry["segments_info"][2] if "segments_info" in entry else entry)[key] = value

    return lambda root: change(root / file, edit)


def _pixel(root: Path) -> None:
    png = next((root / "annotations/panoptic_train2017").iterdir())
    colors = np.array(Image.open(png))
    colors[5, 40] = (1, 2, 3)
    Image.fromarray(colors).save(png)


def _cut(file: str) -> Callable[[Path], None]:
    return lambda root: (root / file).write_text((root / file).read_text()[:-40])


def _smaller(root: Path) -> None:
    png = next((root / "annotations/panoptic_train2017").iterdir())
    Image.open(png).crop((0, 0, 40, 32)).save(png)


EMPTY = {"size": list(SIZE), "counts": [SIZE[0] * SIZE[1]]}
FAULTS: dict[str, tuple[Callable[[Path], Any], str, str, str]] = {
    "an id twice": (_set(OBJECTS, "id", 1), "duplicate_id", "error", "annotation 1 is listed 2 times"),
    "another area": (_set(MAPS, "area", 4), "area_mismatch", "warning", "its area is stated as 4"),
    "another box": (_add(bbox=[2, 2, 26, 7]), "area_mismatch", "warning", "its box is stated as 2, 2, 26, 7"),
    "a polygon outside": (
        _add(segmentation=[[40.0, 2.0, 60.0, 2.0, 60.0, 9.0]]),
        "polygon_outside",
        "warning",
        "annotation 77 leaves the image by 12.0 pixels",
    ),
    "a segment in the map only": (_pixel, "unlisted_segment", "error", "segment 197121 of the map is not in its table"),
    "a segment in the table only": (
        lambda root: change(root / MAPS, lambda c: c["annotations"][0]["segments_info"].append(
            {"id": 5, "category_id": 3, "iscrowd": 0})),
        "unlisted_segment",
        "error",
        "segment 5 of its table in the JSON file has no pixel",
    ),
    "an unknown class": (_add(category_id=4), "unknown_class", "error", "annotation 77 is of category 4"),
    "an unknown class of a segment": (_set(MAPS, "category_id", 4), "unknown_class", "error", "300 is of category 4"),
    "an image that is not listed": (_add(image_id=1), "unknown_image", "error", "annotation 77 is of image 1, which"),
    "an object without a pixel": (_add(segmentation=EMPTY), "empty_object", "warning", "annotation 77 has no pixel"),
    "another size": (_smaller, "size_mismatch", "error", "40 x 32, image 48 x 32"),
    "an object twice": (_add(), "repeated_object", "warning", "the class of annotation 77"),
    "a file that is cut off": (_cut(OBJECTS), "annotation_file", "error", "is not JSON, is it cut off?"),
    "a box that is not finite": (_add(bbox=[float("nan"), 2, 6, 7]), "bad_annotation", "error", "is [NaN, 2, 6, 7]"),
    "a code of another size": (
        _add(segmentation=Rle.of(np.ones((9, 9), bool)).record()),
        "bad_annotation",
        "error",
        "its run-length code is of 9 x 9 pixels (height x width), its image of 32 x 48",
    ),
    "a code that does not fill its size": (
        _add(segmentation={"size": list(SIZE), "counts": [3, 4]}), "bad_annotation", "error", "7 pixels for a size of",
    ),
    "a polygon of two corners": (_add(segmentation=[[1, 2, 3, 4]]), "bad_annotation", "error", "fewer than three"),
    "no segmentation": (_add(segmentation=[]), "bad_annotation", "error", "it has no segmentation"),
    "a missing image": (
        lambda root: next((root / "train2017").iterdir()).unlink(), "list", "error", "which are not there as images",
    ),
    "no categories": (
        lambda root: change(root / OBJECTS, lambda c: c["categories"].clear()), "annotation_file", "error", "category",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_check_tells_what_is_wrong(tmp_path, case):
    breaks, kind, severity, text = FAULTS[case]
    root = write_coco(tmp_path)
    breaks(root)
    if case == "an object twice":
        change(root / OBJECTS, lambda content: content["annotations"].append({**_object(), "id": 78}))
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
    _add(segmentation=EMPTY)(root)
    assert opened(root, "InstancesTarget").load(0).target.classes.tolist() == [0, 2, 1]


def test_several_years_are_refused_until_one_is_named(tmp_path):
    write_coco(tmp_path, year="2014")
    write_coco(tmp_path, year="2017", counts={"train": 2})
    with pytest.raises(DataError, match=r"of several years: 2014, 2017; say data\.year"):
        opened(tmp_path, "InstancesTarget")
    assert len(opened(tmp_path, "InstancesTarget", year="2014")) == 4


def test_two_thousand_objects_are_read(tmp_path):
    root = write_coco(tmp_path)
    template = _object()
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
    _pixel(root)
    _set(MAPS, "area", 4)(root)
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
