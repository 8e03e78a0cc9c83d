"""Own folders give objects and segments from maps, files and annotation files; what is unclear is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from fakes.images import image_of, save_image
from fakes.shared import shared_data
from PIL import Image
from typer.testing import CliRunner

from segatlas.cli.main import app
from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset, describe_layout
from segatlas.data.checks import examine
from segatlas.errors import DataError
from segatlas.structures.rle import Rle

SIZE = (24, 32)
NAMES = ["ground", "car", "tree"]


def write(root: Path, split: str, stem: str) -> np.ndarray:
    """Write an image and return numbers of two objects of class 1 and one of class 2."""
    number = int(stem)
    codes = np.zeros(SIZE, np.int64)
    codes[2:8, 2:10] = 1001
    codes[10:16, 4 + number : 12 + number] = 1002
    codes[18:22, 20:30] = 2001
    save_image(root / split / "images" / f"{stem}.png", image_of(codes % 7, number + 50 * (split == "val")))
    return codes


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)


def make(root: Path, how: str, *, names: bool = True) -> list[np.ndarray]:
    """Write a folder of train and val whose objects are kept in one of the ways; return the scenes of train."""
    scenes = []
    for split, count in {"train": 3, "val": 1}.items():
        listed: list[dict[str, Any]] = []
        images = []
        for index in range(count):
            stem = f"{index:03d}"
            codes = write(root, split, stem)
            images.append({"id": index + 1, "file_name": f"{stem}.png", "height": SIZE[0], "width": SIZE[1]})
            place = root / split / "instances"
            if how == "16 bits":
                save(place / f"{stem}.png", codes.astype(np.uint16))
            elif how == "32 bits":
                save(place / f"{stem}.tif", codes.astype(np.int32))
            elif how == "table":
                small = np.searchsorted([0, 1001, 1002, 2001], codes)
                save(place / f"{stem}.png", small.astype(np.uint8))
                table = [{"id": 1, "class": "car"}, {"id": 2, "class": 1}, {"id": 3, "class": "tree", "crowd": True}]
                (place / f"{stem}.json").write_text(json.dumps(table))
            elif how == "files":
                for name, value in {"car_1": 1001, "car_2": 1002, "01-tree": 2001}.items():
                    save(place / stem / f"{name}.png", np.where(codes == value, 255, 0).astype(np.uint8))
            for value in (1001, 1002, 2001):
                code = Rle.of(codes == value).compressed()
                listed.append({"id": len(listed) + 1, "image_id": index + 1, "category_id": value // 1000 * 10,
                               "segmentation": code})  # fmt: skip
            save(root / split / "masks" / f"{stem}.png", (codes // 1000).astype(np.uint8))
            if split == "train":
                scenes.append(codes)
        if how == "json":
            categories = [{"id": 10, "name": "car"}, {"id": 20, "name": "tree"}]
            content = {"images": images, "annotations": listed, "categories": categories}
            (root / split / "instances.json").write_text(json.dumps(content))
    if names:
        (root / "classes.txt").write_text("\n".join(NAMES))
    return scenes


def opened(root: Path, target: str = "InstancesTarget", **own: Any):
    return create_dataset(DataConfig(name="folder", root=str(root), **own), "train", target=target)


WAYS = {
    "16 bits": {"instances": {"classes": "divisor"}},
    "32 bits": {},
    "table": {"instances": {"classes": "table"}},
    "files": {},
    "json": {},
}


@pytest.mark.parametrize("how", WAYS)
def test_the_same_objects_come_from_every_kind_of_file(tmp_path, how):
    scenes = make(tmp_path, how)
    assert describe_layout(tmp_path) == "folder"
    data = opened(tmp_path, **WAYS[how])
    assert data.classes == tuple(NAMES)
    for index, codes in enumerate(scenes):
        target = data.load(index).target
        order = np.argsort(target.classes, kind="stable")
        assert target.classes[order].tolist() == [1, 1, 2]
        assert np.array_equal(target.masks[order], codes == np.array([1001, 1002, 2001])[:, None, None])
    assert target.crowd.tolist() == [False, False, how == "table"]
    assert examine(DataConfig(name="folder", root=str(tmp_path), **WAYS[how])).ok


@pytest.mark.parametrize("how", WAYS)
def test_masks_and_objects_make_segments(tmp_path, how):
    scenes = make(tmp_path, how)
    own = {"instances": {**WAYS[how].get("instances", {}), "things": ["car", "tree"]}}
    data = opened(tmp_path, "SegmentsTarget", **own)
    assert data.things == (False, True, True)
    target = data.load(0).target
    assert sorted(target.classes.tolist()) == [0, 1, 1, 2]
    assert target.ids.min() == 0
    assert np.array_equal(target.classes[target.ids], scenes[0] // 1000)
    assert len(np.unique(np.stack([target.ids, scenes[0]]).reshape(2, -1), axis=1).T) == 4


def test_segments_wait_for_what_only_the_user_knows(tmp_path):
    make(tmp_path / "a", "16 bits")
    with pytest.raises(DataError, match=r"which classes are things: data\.instances=\{things"):
        opened(tmp_path / "a", "SegmentsTarget")
    make(tmp_path / "b", "files", names=False)
    with pytest.raises(DataError, match=r"how the classes are called: data\.classes"):
        opened(tmp_path / "b", "SegmentsTarget")


def test_classes_of_files_of_objects_are_found_in_their_names(tmp_path):
    make(tmp_path, "files", names=False)
    data = opened(tmp_path)
    assert data.classes == ("car", "tree")
    assert sorted(data.load(0).target.classes.tolist()) == [0, 0, 1]


def test_files_of_objects_may_overlap_and_then_make_no_segments(tmp_path):
    make(tmp_path, "files")
    save(tmp_path / "train/instances/000/tree_9.png", np.full(SIZE, 255, np.uint8))
    target = opened(tmp_path).load(0).target
    assert target.masks.sum(axis=0).max() == 2
    own = {"instances": {"things": ["car", "tree"]}}
    with pytest.raises(DataError, match=r"objects \d and \d overlap \(\d+ pixels"):
        opened(tmp_path, "SegmentsTarget", **own).load(0)
    found = examine(DataConfig(name="folder", root=str(tmp_path), **own))
    assert [one.kind for one in found.errors] == ["overlap"]


def test_masks_may_be_missing_altogether_for_objects(tmp_path):
    make(tmp_path, "json", names=False)
    for path in [*tmp_path.rglob("masks/*.png")]:
        path.unlink()
    for split in ("train", "val"):
        (tmp_path / split / "masks").rmdir()
    data = opened(tmp_path)
    assert (data.classes, len(data)) == (("car", "tree"), 3)
    assert examine(tmp_path).ok


AMBIGUOUS = {
    "either": ([1001, 1002, 1003], "may be class * divisor + n, or the numbers of objects"),
    "no class": ([1, 2, 3], "tell no class"),
    "mixed": ([1, 1001, 2001], "tell no class"),
    "largest of 16 bits": ([65535, 1001], "tell no class"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_numbers_with_several_meanings_are_refused_by_the_files_name(tmp_path, case):
    numbers, text = AMBIGUOUS[case]
    names = ["ground", "car"] if case == "either" else NAMES
    make(tmp_path, "16 bits")
    (tmp_path / "classes.txt").write_text("\n".join(names))
    numbers = list(range(1, 1004)) if case == "either" else numbers
    codes = np.resize(np.array(numbers, np.uint16), SIZE[0] * SIZE[1]).reshape(SIZE)
    if case == "either":
        codes = np.resize(np.array([1001, 1002], np.uint16), codes.size).reshape(SIZE)
    save(tmp_path / "train/instances/001.png", codes)
    if case == "either":
        assert opened(tmp_path).load(1).target.classes.tolist() == [1, 1]  # 1001 and 1002 alone: no count from 1
        return
    with pytest.raises(DataError, match=r"001\.png") as caught:
        opened(tmp_path).load(1)
    assert text in str(caught.value)
    assert "001.png" in str(examine(DataConfig(name="folder", root=str(tmp_path))).errors[0].files[0])


def test_numbers_of_one_class_are_just_counted(tmp_path):
    make(tmp_path, "none", names=False)
    for index in range(3):
        codes = np.zeros((60, 60), np.uint16)
        codes.flat[:2000] = np.arange(1, 2001)
        save_image(tmp_path / "train/images" / f"{index:03d}.png", image_of(codes.astype(np.int64) % 5, 1))
        save(tmp_path / "train/masks" / f"{index:03d}.png", (codes > 0).astype(np.uint8))
        save(tmp_path / "train/instances" / f"{index:03d}.png", codes)
    data = opened(tmp_path)
    assert data.classes == ("object",)
    assert data.load(0).target.masks.shape == (2000, 60, 60)
    named = opened(tmp_path, classes=["ground", "leaf"], instances={"classes": "single"})
    assert set(named.load(0).target.classes.tolist()) == {1}


def _rgb(path: Path) -> None:
    save(path, np.random.default_rng(0).integers(0, 255, (*SIZE, 3)).astype(np.uint8))


REFUSED = {
    "colours": (_rgb, "holds colours, expected one number a pixel"),
    "loss": (lambda path: Image.open(path).convert("L").save(path.with_suffix(".jpg")), "compressed with loss"),
    "fractions": (lambda path: tifffile.imwrite(path.with_suffix(".tif"), np.full(SIZE, 1.5, np.float32)), "fractions"),
    "another size": (lambda path: save(path, np.full((9, 9), 1001, np.uint16)), "9 x 9"),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:-40]), "truncated"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_map_that_is_none_is_refused_by_name(tmp_path, case):
    spoil, text = REFUSED[case]
    make(tmp_path, "16 bits")
    path = tmp_path / "train/instances/001.png"
    spoil(path)
    if case in ("loss", "fractions"):
        path.unlink()
    with pytest.raises(DataError, match=r"001\.") as caught:
        opened(tmp_path).load(1)
    assert text in str(caught.value)
    assert not examine(DataConfig(name="folder", root=str(tmp_path))).ok


def test_palette_maps_give_their_indices(tmp_path):
    make(tmp_path, "16 bits", names=False)
    codes = np.zeros(SIZE, np.uint8)
    codes[:5], codes[9:12] = 1, 2
    for path in (tmp_path / "train/instances").iterdir():
        image = Image.fromarray(codes)
        image.putpalette([9, 9, 9, 200, 0, 0, 0, 0, 200] + [0] * 759)
        image.save(path)
    assert opened(tmp_path).load(0).target.masks.sum(axis=(1, 2)).tolist() == [5 * 32, 3 * 32]


def test_a_file_of_an_object_tells_a_class_and_two_values(tmp_path):
    make(tmp_path, "files")
    folder = tmp_path / "train/instances/000"
    (folder / "car_1.png").rename(folder / "lorry_1.png")
    with pytest.raises(DataError, match=r"lorry_1\.png: its name tells no class: class 'lorry' is none of ground, car"):
        opened(tmp_path).load(0)
    (folder / "lorry_1.png").unlink()
    save(folder / "car_3_crowd.png", np.eye(*SIZE).astype(np.uint8))
    assert opened(tmp_path).load(0).target.crowd.sum() == 1
    save(folder / "car_4.png", (np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % 3).astype(np.uint8))
    with pytest.raises(DataError, match=r"car_4\.png: holds the values 0, 1, 2; expected 0 and one other"):
        opened(tmp_path).load(0)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ('{"1": "car", "2": "car", "3": "bus"}', "class 'bus' is none of ground, car, tree"),
        ('{"1": "car", "1": "car", "2": "car", "3": "tree"}', "lists object 1 twice"),
        ('{"1": "car", "2": "car"}', "holds object 3, which"),
        ('{"1": "car"', "is no table of objects"),
        ('{"0": "car"}', "lists object '0'"),
        (None, "has no table of its objects"),
    ],
)
def test_a_table_that_does_not_fit_its_map_is_refused(tmp_path, table, text):
    make(tmp_path, "table")
    path = tmp_path / "train/instances/000.json"
    if table is None:
        path.unlink()
    else:
        path.write_text(table)
    with pytest.raises(DataError, match="000") as caught:
        opened(tmp_path, **WAYS["table"]).load(0)
    assert text in str(caught.value)


def test_a_table_may_be_csv(tmp_path):
    make(tmp_path, "table")
    path = tmp_path / "train/instances/000.json"
    path.unlink()
    path.with_suffix(".csv").write_text("id,class,crowd\n1,car,\n2,car,1\n3,tree,0\n")
    target = opened(tmp_path, **WAYS["table"]).load(0).target
    assert (target.classes.tolist(), target.crowd.tolist()) == ([1, 1, 2], [False, True, False])


def test_objects_in_a_map_and_in_files_are_refused(tmp_path):
    make(tmp_path, "files")
    save(tmp_path / "train/instances/000.png", np.full(SIZE, 1001, np.uint16))
    with pytest.raises(DataError, match=r"000\.png: has the stem of another file or folder beside it"):
        opened(tmp_path)


def test_panoptic_maps_of_a_folder_give_all_three_truths(tmp_path):
    scenes = make(tmp_path, "none")
    for split, count in {"train": 3, "val": 1}.items():
        images, listed = [], []
        for index in range(count):
            codes = scenes[index] + 1
            colors = np.stack([codes % 256, codes // 256, codes * 0], axis=-1)
            save(tmp_path / split / "panoptic" / f"{index:03d}.png", colors.astype(np.uint8))
            images.append({"id": index, "file_name": f"{index:03d}.png", "height": SIZE[0], "width": SIZE[1]})
            table = [{"id": value + 1, "category_id": value // 1000} for value in (0, 1001, 1002, 2001)]
            listed.append({"image_id": index, "file_name": f"{index:03d}.png", "segments_info": table})
        categories = [{"id": k, "name": name, "isthing": int(k > 0)} for k, name in enumerate(NAMES)]
        content = {"images": images, "annotations": listed, "categories": categories}
        (tmp_path / split / "panoptic.json").write_text(json.dumps(content))
    assert opened(tmp_path).load(0).target.classes.tolist() == [1, 1, 2]
    data = opened(tmp_path, "SegmentsTarget")
    assert (data.things, data.load(0).target.classes.tolist()) == ((False, True, True), [0, 1, 1, 2])
    for path in [*tmp_path.rglob("masks/*.png")]:
        path.unlink()
    for split in ("train", "val"):
        (tmp_path / split / "masks").rmdir()
    assert np.array_equal(opened(tmp_path, "SemanticTarget").load(0).label, scenes[0] // 1000)
    assert examine(tmp_path).ok


def test_real_nuclei_are_read_from_their_file_and_from_their_maps():
    root = shared_data("dsb2018")
    cfg = DataConfig(name="folder", root=str(root))
    listed = create_dataset(cfg, "val", target="InstancesTarget")
    maps = create_dataset(cfg.with_own(instances={"source": "maps"}), "val", target="InstancesTarget")
    assert (listed.classes, maps.classes) == (("nucleus",), ("object",))
    for index in range(0, len(listed), 12):
        first, second = listed.load(index).target.masks, maps.load(index).target.masks
        assert sorted(mask.tobytes() for mask in first) == sorted(mask.tobytes() for mask in second)


def test_a_repaired_copy_keeps_objects_and_mends_what_can_be_mended(tmp_path):
    root, out = tmp_path / "set", tmp_path / "fixed"
    make(root, "json")
    path = root / "train/instances.json"
    content = json.loads(path.read_text())
    entries = content["annotations"]
    entries[0]["area"] = 3
    entries.append({**entries[0], "id": 900})
    entries.append({**entries[0], "id": 901, "segmentation": Rle.of(np.zeros(SIZE, bool)).compressed()})
    corners = [[1.0, 5.0, 60.0, 5.0, 60.0, 9.0, 1.0, 9.0]]
    entries.append({**entries[3], "id": 902, "segmentation": corners, "area": None})
    path.write_text(json.dumps(content))
    mask = root / "train/masks/000.png"
    save(mask, np.where(np.asarray(Image.open(mask)) == 0, 77, np.asarray(Image.open(mask))).astype(np.uint8))
    result = CliRunner().invoke(app, ["data", "check", str(root), "--fix", str(out)])
    assert result.exit_code == 1, result.output
    told = {Path(one["image"]).stem: one["done"] for one in json.loads((out / "fixes.json").read_text())["files"]}
    first = "; ".join(told["000"])
    assert "pixels out of range set to 255" in first
    assert "2 areas or boxes of objects left to their masks" in first
    assert "1 objects that were there twice left out once" in first
    assert "1 objects without a pixel left out" in first
    assert told["001"] == ["1 polygons of objects cut at the image"]
    found = examine(out)
    assert not found.findings, found.findings
    data, fixed = opened(root), opened(out)
    assert fixed.load(0).target.classes.tolist() == [1, 1, 2]
    for index in (1, 2):
        for one, other in zip(data.load(index).target, fixed.load(index).target, strict=True):
            assert np.array_equal(one, other)


def test_a_pair_whose_objects_cannot_be_read_is_left_out_of_a_repaired_copy(tmp_path):
    root, out = tmp_path / "set", tmp_path / "fixed"
    make(root, "json")
    path = root / "train/instances.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = [[1, 2, 3, 4]]
    path.write_text(json.dumps(content))
    assert CliRunner().invoke(app, ["data", "check", str(root), "--fix", str(out)]).exit_code == 1
    (left_out,) = json.loads((out / "fixes.json").read_text())["files"]
    assert left_out["left_out"].startswith("objects: annotation 1: a polygon of fewer than three corners")
    assert sorted(one.stem for one in (out / "train/images").iterdir()) == ["001", "002"]


def test_an_image_without_its_objects_is_left_out_of_a_repaired_copy(tmp_path):
    root, out = tmp_path / "set", tmp_path / "fixed"
    make(root, "16 bits")
    (root / "train/instances/001.png").unlink()
    assert CliRunner().invoke(app, ["data", "check", str(root), "--fix", str(out)]).exit_code == 1
    (left_out,) = json.loads((out / "fixes.json").read_text())["files"]
    assert left_out["left_out"] == "no map of objects"
    assert examine(out).ok


def test_a_copy_is_refused_where_objects_have_a_class_that_masks_have_not_or_there_are_no_masks(tmp_path):
    make(tmp_path / "a", "json", names=False)
    make(tmp_path / "b", "json")
    for path in [*(tmp_path / "b").rglob("masks/*.png")]:
        path.unlink()
    for split in ("train", "val"):
        (tmp_path / "b" / split / "masks").rmdir()
    make(tmp_path / "c", "json")
    path = tmp_path / "c/train/instances.json"
    path.write_text(path.read_text().replace('"category_id": 20', '"category_id": 21', 1))
    told = {
        "a": "objects have the class 'car', masks have none of it",
        "b": "it has no masks; segatlas data convert --to coco",
        "c": "would be lost: annotation 3 is of category 21",
    }
    for name, text in told.items():
        result = CliRunner().invoke(app, ["data", "check", str(tmp_path / name), "--fix", str(tmp_path / "out")])
        assert result.exit_code == 1
        assert text in " ".join(result.output.split())
        assert not (tmp_path / "out").exists()
