"""Weak labels keep their meaning on the way to a batch; what is wrong with them is told by check and by training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.images import save_codes
from fakes.weak import NAMES, SIZE, scene, write_weak

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset, describe_layout
from segatlas.data.checks import examine
from segatlas.data.checks.convert import to_folder
from segatlas.data.collate import collate
from segatlas.data.formats.label_tables import read_box_table, read_class_table, read_voc_boxes
from segatlas.data.statistics import describe
from segatlas.data.transforms import Pipeline
from segatlas.data.transforms.geometry import Geometry
from segatlas.errors import DataError, UsageError
from segatlas.metrics import create
from segatlas.structures import InstancesTarget, Result, SemanticTarget


def opened(root: Path, split: str = "train", target: str = "SemanticTarget", **keys):
    return create_dataset(DataConfig(name="weak", root=str(root), **keys), split, target=target)


def first(root: Path, **keys) -> SemanticTarget:
    target = opened(root, **keys).truth(0)
    assert isinstance(target, SemanticTarget)
    return target


@pytest.mark.parametrize("kind", ["scribbles", "points", "boxes", "labels", "partial"])
def test_each_kind_is_recognised_clean_and_read_with_whole_masks_of_val(tmp_path, kind):
    root = write_weak(tmp_path, kind)
    assert describe_layout(root) == "weak"
    report = examine(root)
    assert not report.findings
    assert report.splits == {"train": (4, 0), "val": (2, 2)}
    assert sum(report.further["train"].values()) == 4
    train, val = opened(root), opened(root, "val")
    assert (train.classes, len(train), len(val)) == (NAMES, 4, 2)
    np.testing.assert_array_equal(val.load(0).label, scene(100))
    label = np.asarray(first(root).labels)
    if kind in ("scribbles", "points"):
        known = label != 255
        assert 0 < known.mean() < 0.5
        np.testing.assert_array_equal(label[known], scene(0)[known])


def test_boxes_are_filled_the_smaller_over_the_larger_and_give_objects(tmp_path):
    root = write_weak(tmp_path, "boxes", train=1)
    (root / "train/boxes.csv").write_text(
        "filename,class,xmin,ymin,xmax,ymax\n000.png,tree,10,4,20,9\n000.png,car,5,2,40,30.5\n000.png,car,44,28,60,40\n"
    )
    label = np.zeros(SIZE, np.uint8)
    label[2:31, 5:40], label[28:32, 44:48], label[4:9, 10:20] = 1, 1, 2
    np.testing.assert_array_equal(np.asarray(first(root).labels), label)
    objects = opened(root, target="InstancesTarget").truth(0)
    assert isinstance(objects, InstancesTarget)
    assert np.asarray(objects.classes).tolist() == [2, 1, 1]
    assert np.asarray(objects.masks).sum(axis=(1, 2)).tolist() == [50, 35 * 29, 16]
    outside = np.asarray(first(root, outside="ignore").labels)
    assert set(np.unique(outside)) == {1, 2, 255}
    found = {finding.kind: finding for finding in examine(root).findings}
    assert found["box_cut"].severity == "warning"
    assert "line 4: leaves the image by 12.0 pixels" in found["box_cut"].details[0]


def test_boxes_of_all_three_forms_are_the_same(tmp_path):
    csv = write_weak(tmp_path / "csv", "boxes", train=1)
    boxes = read_box_table(csv / "train/boxes.csv").boxes["000"]
    coco = write_weak(tmp_path / "coco", "boxes", train=1)
    (coco / "train/boxes.csv").unlink()
    entries = [
        {"id": number, "image_id": 1, "category_id": 1 + NAMES.index(box.name),
         "bbox": [box.corners[0], box.corners[1], box.corners[2] - box.corners[0], box.corners[3] - box.corners[1]]}
        for number, box in enumerate(boxes)
    ]  # fmt: skip
    content = {"images": [{"id": 1, "file_name": "000.png", "height": 32, "width": 48}], "annotations": entries}
    content["categories"] = [{"id": index + 1, "name": name} for index, name in enumerate(NAMES)]
    (coco / "train/boxes.json").write_text(json.dumps(content))
    voc = write_weak(tmp_path / "voc", "boxes", train=1)
    (voc / "train/boxes.csv").unlink()
    (voc / "train/boxes").mkdir()
    objects = "".join(
        f"<object><name>{box.name}</name><bndbox><xmin>{box.corners[0] + 1}</xmin><ymin>{box.corners[1] + 1}</ymin>"
        f"<xmax>{box.corners[2]}</xmax><ymax>{box.corners[3]}</ymax></bndbox></object>"
        for box in boxes
    )
    (voc / "train/boxes/000.xml").write_text(f"<annotation>{objects}</annotation>")
    labels = [np.asarray(first(root).labels) for root in (csv, coco, voc)]
    np.testing.assert_array_equal(labels[0], labels[1])
    np.testing.assert_array_equal(labels[0], labels[2])
    assert not examine(voc).errors


def test_classes_of_images_come_from_a_table_from_folders_or_from_masks(tmp_path):
    table = write_weak(tmp_path / "table", "labels")
    (table / "train/labels.csv").write_text("image,classes\n000.png,tree\n001.png,\n002,car;tree\n003,car\n")
    flags = [np.asarray(opened(table).truth(index).present).tolist() for index in range(4)]
    assert flags == [[True, False, True], [True, False, False], [True, True, True], [True, True, False]]
    assert (np.asarray(first(table).labels) == 255).all()
    assert not np.asarray(first(table, background="none").present)[0]
    folders = write_weak(tmp_path / "folders", "labels")
    (folders / "train/labels.csv").unlink()
    for index, image in enumerate(sorted((folders / "train/images").iterdir())):
        place = folders / "train/images" / NAMES[1 + index % 2] / image.name
        place.parent.mkdir(exist_ok=True)
        image.rename(place)
    data = opened(folders, kind="folders")
    assert [np.flatnonzero(np.asarray(data.truth(i).present)).tolist() for i in (0, 3)] == [[0, 1], [0, 2]]
    masks = write_weak(tmp_path / "masks", "partial")
    of_masks = first(masks, kind="mask_labels")
    assert np.asarray(of_masks.present).tolist() == [bool((np.asarray(scene(0)) == k).any()) for k in (0, 1)] + [False]


def test_classes_that_were_not_annotated_travel_to_the_batch_and_scores_leave_them_out(tmp_path):
    root = write_weak(tmp_path, "partial")
    data = opened(root)
    target = data.truth(0)
    assert np.asarray(target.annotated).tolist() == [False, True, False]
    pipeline = Pipeline(geometry=Geometry(before=(), crop=None, after=()), mean=(0.5,) * 3, std=(0.2,) * 3)
    prepared = [pipeline(data.load(index), np.random.default_rng(0)) for index in (0, 1)]
    batch = collate(prepared)
    assert batch.annotated.tolist() == [[False, True, False], [False, False, True]]
    assert batch.present is None
    whole = pipeline(opened(root, "val").load(0), np.random.default_rng(0))
    assert collate([prepared[0], whole]).annotated.tolist() == [[False, True, False], [True, True, True]]
    assert collate([whole]).annotated is None
    metrics = create(("confusion",), NAMES, {})
    metrics.update(Result(class_map=np.full(SIZE, 1, np.uint8)), target)
    assert metrics.compute().whole["miou"] == 1  # what is not class 1 may be anything, and is not scored
    assert set(np.unique(target.certain)) == {1, 255}


def test_annotated_classes_may_be_said_of_many_images_by_a_pattern(tmp_path):
    root = write_weak(tmp_path, "partial")
    (root / "train/classes_labelled.csv").write_text("image,classes\n000,car\n00*,tree;car\n")
    flags = [opened(root).truth(index).annotated for index in range(4)]
    assert [np.asarray(one).tolist() for one in flags] == [[False, True, False]] + 3 * [[False, True, True]]


def test_a_batch_of_image_labels_has_what_is_present_and_whole_masks_what_they_show(tmp_path):
    data = opened(write_weak(tmp_path, "labels"))
    pipeline = Pipeline(geometry=Geometry(before=(), crop=None, after=()), mean=(0.5,) * 3, std=(0.2,) * 3)
    one = pipeline(data.load(0), np.random.default_rng(0))
    other = pipeline(opened(tmp_path, "val").load(0), np.random.default_rng(0))
    batch = collate([one, other])
    assert torch.equal(batch.present, torch.ones(2, 3, dtype=torch.bool))
    assert batch.annotated is None


REST = "001,\n002,\n003,\n"
CSV = "image,class,x0,y0,x1,y1\n"
FAULTS = {
    "a box outside": ("boxes", "boxes.csv", CSV + "000,car,60,2,70,9\n" + REST, "bad_box", "line 2: the box"),
    "no area": ("boxes", "boxes.csv", CSV + "000,car,5,9,5,20\n001,\n002,\n003,\n", "bad_box", "has no area"),
    "no number": ("boxes", "boxes.csv", CSV + "000,car,5,x,5,20\n001,\n002,\n003,\n", "bad_annotation", "line 2"),
    "box of an unknown image": ("boxes", "boxes.csv", CSV + "gone,car,1,1,5,5\n", "unknown_image", "no image gone"),
    "box of an unknown class": ("boxes", "boxes.csv", CSV + "000,cat,1,1,5,5\n", "unknown_class", "nearest 'car'"),
    "an image without row": ("boxes", "boxes.csv", CSV + "000,car,1,1,5,5\n", "missing_file", "no row in"),
    "no column": ("boxes", "boxes.csv", "image,class\n000,car\n", "annotation_file", "has no column x0"),
    "one image by two names": (
        "boxes", "boxes.csv", CSV + "000.png,car,1,1,5,5\ntrain/images/000.png,car,7,7,9,9\n" + REST, "bad_annotation",
        "000 and train/images/000 are both image 000",
    ),
    "corners the wrong way": ("boxes", "boxes.csv", CSV + "000,car,9,9,5,5\n" + REST, "bad_box", "has no area"),
    "classes with commas between": (
        "labels", "labels.csv", "image,classes\n000,car,tree\n" + REST, "annotation_file", "has 3 fields, the head 2",
    ),
    "classes by two names": (
        "labels", "labels.csv", "image,classes\n000,car\na/000,tree\n" + REST, "bad_annotation", "both image 000",
    ),
    "no annotated class at all": ("partial", "classes_labelled.csv", "image,classes\n*,\n", "no_label", ""),
    "no image at all": ("partial", "classes_labelled.csv", "image,classes\n", "annotation_file", "names no image"),
    "unknown image": ("labels", "labels.csv", "image,classes\ngone,car\n", "unknown_image", "no image gone"),
    "unknown class": ("labels", "labels.csv", "image,classes\n000,caar\n", "unknown_class", "nearest 'car'"),
    "twice": ("labels", "labels.csv", "image,classes\n000,car\n000,tree\n", "annotation_file", "listed twice"),
    "no class of any": ("labels", "labels.csv", "image,classes\n000\n001\n002\n003\n", None, ""),
    "unknown annotated class": (
        "partial", "classes_labelled.csv", "image,classes\n000,cow\n", "unknown_class", "none of the 3",
    ),
    "pattern of no image": ("partial", "classes_labelled.csv", "image,classes\nb/*,car\n", "unknown_image", "b/*"),
}  # fmt: skip


def load_all(root: Path) -> None:
    data = opened(root)
    for index in range(len(data)):
        data.load(index)


@pytest.mark.parametrize("case", FAULTS)
def test_a_faulty_table_is_an_error_of_check_and_of_training(tmp_path, case):
    kind, name, content, finding, text = FAULTS[case]
    root = write_weak(tmp_path, kind)
    (root / "train" / name).write_text(content)
    errors = {one.kind: " ".join((one.fault, *one.details)) for one in examine(root).errors}
    if finding is None:
        assert not errors  # an image that shows nothing but the background is no fault
        return
    assert finding in errors
    if finding == "no_label":
        return  # told by the look before a training, as of masks of 255
    with pytest.raises(DataError) as caught:
        load_all(root)
    assert text in errors[finding] or text in str(caught.value)
    assert any(part in str(caught.value) for part in (name, "images/"))


def test_an_image_without_any_label_is_named_and_a_split_without_one_is_refused(tmp_path):
    root = write_weak(tmp_path, "scribbles")
    files = sorted((root / "train/scribbles").iterdir())
    save_codes(files[1], np.full(SIZE, 255))
    found = {one.kind: one for one in examine(root).findings}
    assert [path.name for path in found["nothing_labelled"].files] == ["001.png"]
    assert examine(root).ok
    for file in files:
        save_codes(file, np.full(SIZE, 255))
    assert "no_label" in {one.kind for one in examine(root).errors}
    files[0].unlink()
    with pytest.raises(DataError, match="has no scribbles in"):
        opened(root)


def test_numbers_of_a_split_count_the_images_that_are_said_to_show_a_class(tmp_path):
    root = write_weak(tmp_path, "labels", train=2)
    (root / "train/labels.csv").write_text("image,classes\n000,car\n001,car;tree\n")
    found = describe(opened(root))
    assert (found.class_images, found.class_pixels) == ((2, 2, 1), (0, 0, 0))


def test_a_class_that_no_weak_label_shows_is_named(tmp_path):
    root = write_weak(tmp_path, "labels")
    (root / "train/labels.csv").write_text("image,classes\n000,car\n001,car\n002,car\n003,car\n")
    texts = {one.kind: one.fault for one in examine(root).warnings}
    assert texts["class_not_in_train"].endswith("tree")


def test_beside_a_whole_mask_regions_without_a_label_and_contradictions_are_named(tmp_path):
    root = write_weak(tmp_path, "points", train=1)
    save_codes(root / "train/masks/000.png", scene(0))
    kept = np.full(SIZE, 255)
    kept[0, 0] = scene(0)[0, 0]
    kept[-1, -1] = (scene(0)[-1, -1] + 1) % 3
    save_codes(root / "train/points/000.png", kept)
    found = {one.kind: one for one in examine(root).warnings}
    assert "1 labelled pixels have another class" in found["contradiction"].details[0]
    assert "no point: class" in found["region_without_label"].details[0]


def test_what_is_not_clear_is_asked_for(tmp_path):
    root = write_weak(tmp_path, "points")
    write_weak(root, "labels")
    with pytest.raises(DataError, match=r"several kinds of labels of train: points, labels; say which in data\.kind"):
        opened(root)
    assert opened(root, kind="points").truth(0).present is None
    with pytest.raises(DataError, match=r"has no scribbles of train, which data.kind asks for"):
        opened(root, kind="scribbles")
    with pytest.raises(UsageError, match="'grond' is none of the 3 classes, nearest 'ground'"):
        opened(root, kind="points", background="grond")
    (root / "classes.json").unlink()
    with pytest.raises(DataError, match=r"name them in classes\.json"):
        opened(root, kind="points")


def test_val_is_never_held_out_of_weak_labels(tmp_path):
    root = write_weak(tmp_path, "boxes", val=0)
    with pytest.raises(DataError, match="has no val part, and none is held out"):
        opened(root, "val")
    assert "missing_split" in {one.kind for one in examine(root).errors}


def test_val_without_whole_masks_is_told(tmp_path):
    root = write_weak(tmp_path, "points")
    shutil.rmtree(root / "val/masks")
    shutil.copytree(root / "train/points", root / "val/points")
    for stem in ("100", "101"):
        (root / f"val/points/{int(stem) - 100:03d}.png").rename(root / f"val/points/{stem}.png")
    told = {one.kind: one for one in examine(root).findings}["weak_scores"]
    assert (told.severity, "val has no whole masks, so its scores are against points") == ("warning", told.fault)


def test_a_copy_that_would_lose_weak_labels_is_refused(tmp_path):
    root = write_weak(tmp_path / "weak", "scribbles")
    with pytest.raises(UsageError, match="a copy holds images and masks alone, not: scribbles"):
        to_folder(DataConfig(name="weak", root=str(root)), tmp_path / "copy")


def coco(*boxes: tuple[str, dict], size: tuple[int, int] = SIZE) -> str:
    """Return an annotation file: boxes (file name, further keys), each of an image of its own."""
    images = [{"id": i, "file_name": name, "height": size[0], "width": size[1]} for i, (name, _) in enumerate(boxes)]
    entries = [{"id": i, "image_id": i, "category_id": 1, "bbox": [2, 2, 8, 6], **more}
               for i, (_, more) in enumerate(boxes)]  # fmt: skip
    return json.dumps({"images": images, "annotations": entries, "categories": [{"id": 1, "name": "car"}]})


def test_boxes_of_an_image_of_another_size_and_images_that_a_file_lists_twice_are_refused(tmp_path):
    root = write_weak(tmp_path, "boxes", train=1)
    (root / "train/boxes.csv").unlink()
    file = root / "train/boxes.json"
    file.write_text(coco(("000.png", {"iscrowd": 1})))
    assert np.asarray(opened(root, target="InstancesTarget").truth(0).crowd).tolist() == [True]
    file.write_text(coco(("000.png", {}), size=(64, 96)))
    with pytest.raises(DataError, match="drawn on an image of 96 x 64 pixels, and this one has 48 x 32"):
        load_all(root)
    assert "bad_box" in {one.kind for one in examine(root).errors}
    file.write_text(coco(("000.png", {}), ("000.png", {})))
    with pytest.raises(DataError, match=r"image 1: 000\.png is listed twice"):
        opened(root)
    file.unlink()
    (root / "train/boxes").mkdir()
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    text = (
        "<annotation><size><width>{}</width><height>{}</height></size><object><name>car</name>{}</object></annotation>"
    )
    (root / "train/boxes/000.xml").write_text(text.format(0, 0, box))
    load_all(root)
    (root / "train/boxes/000.xml").write_text(text.format(48, 31, box))
    with pytest.raises(DataError, match="drawn on an image of 48 x 31 pixels"):
        load_all(root)


@pytest.mark.parametrize("content", ["", "<annotation><object></object></annotation>", "<!DOCTYPE a><a/>", "<annot"])
def test_xml_that_tells_no_boxes_is_refused(tmp_path, content):
    (tmp_path / "a.xml").write_text(content)
    with pytest.raises(DataError):
        read_voc_boxes(tmp_path / "a.xml")


def test_tables_are_read_with_other_delimiters_and_orders(tmp_path):
    (tmp_path / "a.csv").write_text("classes\timage\ncar; tree\tsub/a.b.JPG\n")
    assert read_class_table(tmp_path / "a.csv") == {"sub/a.b": (("car", "tree"), 2)}
