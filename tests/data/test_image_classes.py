from __future__ import annotations

import logging
import shutil

import pytest
from fakes.image_classes import CLASSES, write_image_classes

from segatlas.data.image_classes import look_at_images, open_image_classes
from segatlas.errors import DataError


@pytest.fixture
def root(tmp_path):
    return write_image_classes(tmp_path / "images", train=2, val=1)


def test_classes_are_the_folders_of_train_in_order_and_each_image_has_its_number(root):
    train, val = open_image_classes(root)
    assert train.classes == val.classes == CLASSES
    assert [train.key(index) for index in range(3)] == ["columns/000", "columns/001", "discs/000"]
    assert [train.class_of(index) for index in range(len(train))] == [0, 0, 1, 1, 2, 2]
    assert [val.class_of(index) for index in range(len(val))] == [0, 1, 2]
    assert train.load(0).image.shape == (72, 80, 3)
    assert train.files(5)[0] == root / "train" / "rows" / "001.png"
    assert look_at_images(train, val) == 9


def test_hidden_folders_and_other_files_are_left_out(root):
    (root / "train" / ".cache").mkdir()
    (root / "train" / "rows" / "notes.txt").write_text("")
    train, _ = open_image_classes(root)
    assert (train.classes, len(train)) == (CLASSES, 6)


def empty(root):
    shutil.rmtree(root / "train" / "discs")
    (root / "train" / "discs").mkdir()


def unknown(root):
    (root / "val" / "disc").mkdir()


def loose(root):
    (root / "train" / "a.jpg").write_bytes(b"")


def no_val(root):
    shutil.rmtree(root / "val")


def one_class(root):
    for name in CLASSES[1:]:
        shutil.rmtree(root / "train" / name)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (empty, r"train/discs: a class without an image; remove the folder or fill it"),
        (unknown, r"val: holds classes that train/ has not: disc; did you mean 'discs'"),
        (loose, r"train: holds images beside the folders of classes: a\.jpg"),
        (no_val, r"has no folder val/, expected train/CLASS/\* and val/CLASS/\*; it holds train/"),
        (one_class, r"train: holds 1 folders of classes, expected at least 2"),
    ],
)
def test_a_folder_laid_out_otherwise_is_refused_with_the_folder_at_fault(spoil, message, root):
    spoil(root)
    with pytest.raises(DataError, match=message):
        open_image_classes(root)


def test_no_root_and_a_missing_one_are_told(tmp_path):
    with pytest.raises(DataError, match=r"data\.root is not set"):
        open_image_classes(None)
    with pytest.raises(DataError, match="it is not there"):
        open_image_classes(tmp_path / "nowhere")


def test_a_class_without_an_image_of_val_is_a_warning(root, caplog):
    shutil.rmtree(root / "val" / "rows")
    with caplog.at_level(logging.WARNING, logger="segatlas"):
        _, val = open_image_classes(root)
    assert len(val) == 2
    assert "no image in" in caplog.text
    assert "rows" in caplog.text


def test_an_unreadable_image_is_named_before_a_training_begins(root):
    (root / "val" / "rows" / "000.png").write_bytes(b"no image at all")
    with pytest.raises(DataError, match=r"val/rows/000\.png"):
        look_at_images(*open_image_classes(root))
