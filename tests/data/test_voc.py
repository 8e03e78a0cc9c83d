from __future__ import annotations

import numpy as np
import pytest
from fakes.images import blocks
from fakes.shared import shared_data
from fakes.voc import STEMS, write_voc
from PIL import Image

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset, describe_layout
from segatlas.data.dataset import SegmentationData
from segatlas.data.datasets import voc
from segatlas.errors import DataError


def open_voc(root, split="train"):
    return create_dataset(DataConfig(name="voc", root=str(root)), split)


@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_root_may_be_the_kit_or_the_year(tmp_path, below):
    write_voc(tmp_path)
    data = open_voc(tmp_path / below)
    assert isinstance(data, SegmentationData)
    assert tuple(data.key(index) for index in range(len(data))) == STEMS["train"]
    expected = blocks(1, range(21), (40, 50))
    expected[0, :] = 255
    assert np.array_equal(data.load(1).label, expected)
    assert data.load(1).image.shape == (40, 50, 3)
    assert describe_layout(tmp_path / below) == "voc"


def test_any_list_is_a_split_and_an_unknown_one_names_them(tmp_path):
    write_voc(tmp_path)
    assert len(open_voc(tmp_path, "trainval")) == 5
    with pytest.raises(DataError, match=r"no list for split 'vall'; lists there: train, trainval, val, nearest val"):
        open_voc(tmp_path, "vall")


def test_missing_files_are_named_with_their_list(tmp_path):
    write_voc(tmp_path)
    home = tmp_path / "VOCdevkit/VOC2012"
    (home / "SegmentationClass/2007_000039.png").unlink()
    with pytest.raises(DataError, match=r"2007_000039\.png: no such mask.*train\.txt"):
        open_voc(tmp_path)
    (home / "JPEGImages/2007_000032.jpg").unlink()
    with pytest.raises(DataError, match=r"2007_000032\.jpg: no such image, listed in .*train\.txt"):
        open_voc(tmp_path)
    (home / "ImageSets/Segmentation/train.txt").write_text("\n")
    with pytest.raises(DataError, match="split 'train' is empty"):
        open_voc(tmp_path)


def test_palette_is_the_official_one_in_real_masks():
    folder = shared_data("samples/voc/VOCdevkit/VOC2012/SegmentationClass")
    stored = np.array(Image.open(folder / "2007_004189.png").getpalette()).reshape(-1, 3)
    assert [tuple(color) for color in stored[:21].tolist()] == list(voc.PALETTE)


def test_real_images_load_with_border_as_255():
    data = open_voc(shared_data("samples/voc"), "val")
    for index in range(len(data)):
        sample = data.load(index)
        assert sample.label.shape == sample.image.shape[:2]
        assert 255 in sample.label
        assert set(np.unique(sample.label)) <= {*range(21), 255}
