from __future__ import annotations

import numpy as np
import pytest
from fakes.ade20k import OBJECTS, OTHER_OBJECT, STEMS, write_ade20k
from fakes.images import blocks
from fakes.shared import shared_data
from PIL import Image

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset, describe_layout
from segatlas.data.checks import examine, repair
from segatlas.data.datasets import ade20k
from segatlas.data.formats.masks import read_mask
from segatlas.errors import DataError


def open_ade20k(root, split="train"):
    return create_dataset(DataConfig(name="ade20k", root=str(root)), split)


def test_there_are_150_classes_with_a_name_a_colour_and_objects_each():
    assert len(ade20k.LABELS) == len(set(ade20k.CLASSES)) == 150
    objects = [number for _, _, numbers in ade20k.LABELS for number in numbers]
    assert len(objects) == len(set(objects)) == 153
    assert (ade20k.CLASSES[0], ade20k.PALETTE[0]) == ("wall", (120, 120, 120))
    assert (ade20k.CLASSES[149], ade20k.PALETTE[149]) == ("flag", (92, 0, 255))


@pytest.mark.parametrize("below", ["", "ADEChallengeData2016"])
def test_in_the_challenge_tree_code_0_is_ignored_and_codes_1_to_150_are_the_classes(tmp_path, below):
    write_ade20k(tmp_path / below)
    data = open_ade20k(tmp_path)
    assert tuple(data.key(index) for index in range(len(data))) == STEMS["training"]
    codes = blocks(1, range(151), (40, 50))
    assert np.array_equal(data.load(1).label, np.where(codes == 0, 255, codes - 1))
    assert len(open_ade20k(tmp_path, "val")) == 2
    assert describe_layout(tmp_path) == "ade20k"


def test_in_the_full_tree_colours_are_objects_of_which_some_make_a_class(tmp_path):
    write_ade20k(tmp_path, full=True)
    data = open_ade20k(tmp_path, "val")
    assert data.key(1) == "a/abbey/ADE_val_00000002"
    objects = blocks(1, (*OBJECTS.values(), 774, OTHER_OBJECT), (40, 50))
    expected = np.full(objects.shape, 255)
    for code, number in {**OBJECTS, 774: 774}.items():
        expected[objects == number] = (15 if number == 774 else code) - 1
    assert np.array_equal(data.load(1).label, expected)
    assert describe_layout(tmp_path) == "ade20k"


def test_another_release_of_the_full_tree_brings_its_own_object_numbers(tmp_path):
    write_ade20k(tmp_path, full=True)
    (tmp_path / "index_ade20k.pkl").write_bytes(b"")
    with pytest.raises(DataError, match=r"2021 needs mapFromADE\.txt"):
        open_ade20k(tmp_path).load(0)
    (tmp_path / "mapFromADE.txt").write_text(f"1\t{OTHER_OBJECT}\n\n150 312 \n")
    label = open_ade20k(tmp_path).load(0).label
    objects = blocks(0, (*OBJECTS.values(), 774, OTHER_OBJECT), (40, 50))
    assert np.array_equal(label, np.where(objects == OTHER_OBJECT, 0, np.where(objects == 312, 149, 255)))


@pytest.mark.parametrize(("line", "fault"), [("151 3", "expected a class 1..150"), ("1 9999", "expected 0..6655")])
def test_a_wrong_line_of_object_numbers_is_named(tmp_path, line, fault):
    write_ade20k(tmp_path, full=True)
    (tmp_path / "mapFromADE.txt").write_text(f"1 2978\n{line}\n")
    with pytest.raises(DataError, match=rf"mapFromADE\.txt: line 2: .*{fault}"):
        open_ade20k(tmp_path)


def test_a_missing_mask_and_an_empty_split_are_named(tmp_path):
    write_ade20k(tmp_path)
    (tmp_path / "annotations/training/ADE_train_00000002.png").unlink()
    with pytest.raises(DataError, match=r"ADE_train_00000002\.jpg: has no mask .*annotations/training/ADE_train_0"):
        open_ade20k(tmp_path)
    (tmp_path / "images/training").rename(tmp_path / "gone")
    with pytest.raises(DataError, match=r"split 'test' is empty.*splits with images: val"):
        open_ade20k(tmp_path, "test")


def test_data_check_names_a_code_above_150(tmp_path):
    write_ade20k(tmp_path)
    assert {finding.kind for finding in examine(tmp_path).errors} <= {"leakage"}
    mask = tmp_path / "annotations/training/ADE_train_00000001.png"
    Image.fromarray(np.full((40, 50), 151, np.uint8)).save(mask)
    assert any(mask in finding.files for finding in examine(tmp_path).errors)


def test_data_check_reads_the_full_tree_and_its_repaired_copy_holds_the_150_classes(tmp_path):
    root = write_ade20k(tmp_path / "full", full=True)
    found = examine(root)
    assert found.splits == {"train": (3, 3), "val": (2, 2)}
    assert {finding.kind for finding in found.errors} <= {"leakage"}
    assert found.reading.label_counts(found.scan.readable_masks()[0]).keys() <= {0, 1, 2, 14, 149, 255}
    copy = repair(found, tmp_path / "copy")
    data = open_ade20k(root)
    masks = {mask.stem: read_mask(mask) for mask in (copy / "train" / "masks").rglob("*.png")}
    for index in range(len(data)):
        assert np.array_equal(masks[data.key(index).rsplit("/", 1)[-1]], data.load(index).label)


def test_a_missing_mask_of_the_full_tree_and_the_release_of_2021_are_errors_for_check_and_training(tmp_path):
    write_ade20k(tmp_path, full=True)
    lost = next((tmp_path / "images/training").rglob("*_seg.png"))
    lost.unlink()
    assert "missing_mask" in {finding.kind for finding in examine(tmp_path).errors}
    with pytest.raises(DataError, match=r"has no mask .*_seg\.png"):
        open_ade20k(tmp_path)
    (tmp_path / "index_ade20k.pkl").write_bytes(b"")
    finding = next(finding for finding in examine(tmp_path).errors if finding.kind == "classes_file")
    assert "mapFromADE.txt" in finding.repair
    with pytest.raises(DataError, match=r"needs mapFromADE\.txt"):
        open_ade20k(tmp_path, "val")


def test_real_images_of_the_challenge_tree_load():
    data = open_ade20k(shared_data("samples/ade20k"), "val")
    assert len(data) == 3
    for index in range(3):
        sample = data.load(index)
        assert sample.label.shape == sample.image.shape[:2]
        assert set(np.unique(sample.label)) <= {*range(150), 255}


def test_a_real_mask_of_the_full_tree_has_the_classes_of_its_challenge_mask(tmp_path):
    folder = shared_data("samples/ade20k/full_format")
    images = tmp_path / "images" / "training"
    images.mkdir(parents=True)
    colors = Image.open(folder / "ADE_train_00000970_seg.png")
    colors.save(images / "ADE_train_00000970_seg.png")
    Image.new("RGB", colors.size).save(images / "ADE_train_00000970.jpg")
    label = open_ade20k(tmp_path).load(0).label
    codes = np.array(Image.open(folder / "ADE_train_00000970_challenge150.png")).astype(int)
    challenge = Image.fromarray(np.where(codes == 0, 255, codes - 1).astype(np.uint8))
    same_size = np.array(challenge.resize(colors.size, Image.Resampling.NEAREST))
    assert set(np.unique(label)) == set(np.unique(same_size))
    assert (label == same_size).mean() > 0.99  # the challenge's copy was reduced: only borders differ
