"""ISIC 2018, task 1: 255 is the lesion, and val is held out of train where its folders are missing."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from fakes.images import save_codes
from fakes.isic2018 import write_isic2018
from PIL import Image

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.checks import examine
from segatlas.errors import DataError


def cfg(root, **own):
    return DataConfig(name="isic2018", root=str(root), **own)


def test_masks_of_0_and_255_are_background_and_lesion_and_clean(tmp_path):
    write_isic2018(tmp_path)
    data = create_dataset(cfg(tmp_path), "train")
    assert np.array_equal(data.load(0).label, np.array(Image.open(data.files(0)[1])) == 255)
    assert examine(tmp_path).findings == ()
    assert [len(create_dataset(cfg(tmp_path), split)) for split in ("train", "val", "test")] == [5, 2, 2]


def test_val_is_held_out_of_train_without_its_folders(tmp_path):
    write_isic2018(tmp_path, counts={"Training": 5, "Test": 2})
    train, val = (create_dataset(cfg(tmp_path, val_fraction=0.4), split) for split in ("train", "val"))
    assert (len(train), len(val)) == (3, 2)


def test_other_values_and_missing_masks_are_told_with_the_file(tmp_path):
    write_isic2018(tmp_path)
    data = create_dataset(cfg(tmp_path), "val")
    save_codes(data.files(0)[1], np.full((30, 40), 100))
    with pytest.raises(DataError, match=r"_segmentation.png: label 100 \(1200 pixels\).* label map \(0, 255\); run"):
        data.load(0)
    shutil.rmtree(tmp_path / "ISIC2018_Task1_Test_GroundTruth")
    assert create_dataset(cfg(tmp_path), "test").load(0).target is None
