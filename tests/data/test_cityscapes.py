from __future__ import annotations

import numpy as np
import pytest
from fakes.cityscapes import EVALUATED, to_train_ids, write_cityscapes
from fakes.images import blocks
from fakes.shared import shared_data

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset, describe_layout
from segatlas.data.dataset import SegmentationData
from segatlas.data.datasets import cityscapes
from segatlas.data.formats.masks import read_mask
from segatlas.errors import DataError


def open_cityscapes(root, split="train"):
    return create_dataset(DataConfig(name="cityscapes", root=str(root)), split)


@pytest.mark.parametrize("train_ids", [False, True])
def test_label_ids_and_train_ids_give_the_same_labels(tmp_path, train_ids):
    data = open_cityscapes(write_cityscapes(tmp_path, train_ids=train_ids))
    assert isinstance(data, SegmentationData)
    assert [data.key(index) for index in range(3)] == [
        "aachen/aachen_000000_000019",
        "aachen/aachen_000001_000019",
        "bremen/bremen_000001_000019",
    ]
    expected = to_train_ids(blocks(2, range(34), (32, 64)))
    assert np.array_equal(data.load(1).label, expected)
    assert describe_layout(tmp_path) == "cityscapes"


def test_19_classes_carry_the_official_names_and_ids():
    assert len(cityscapes.CLASSES) == len(cityscapes.PALETTE) == 19
    assert cityscapes.CLASSES[0] == "road"
    assert cityscapes.CLASSES[18] == "bicycle"
    assert tuple(cityscapes.LABEL_ID_OF_TRAIN_ID[i] for i in range(19)) == EVALUATED


def test_label_ids_file_is_preferred(tmp_path):
    write_cityscapes(tmp_path)
    write_cityscapes(tmp_path, train_ids=True)
    assert open_cityscapes(tmp_path).files(0)[1].name.endswith("_labelIds.png")


def test_submission_ids_turn_back_to_the_same_labels():
    labels = np.array([[*range(19), 255]], np.uint8)
    ids = cityscapes.to_label_ids(labels)
    assert ids.tolist() == [[*EVALUATED, 0]]
    assert np.array_equal(to_train_ids(ids), labels)
    with pytest.raises(DataError, match="value 19 is not a train id"):
        cityscapes.to_label_ids(np.array([[19]], np.uint8))


def test_test_split_has_no_truth_but_train_must(tmp_path):
    write_cityscapes(tmp_path)
    assert open_cityscapes(tmp_path, "test").load(0).label is None
    (tmp_path / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(DataError, match=r"aachen_000000_000019_leftImg8bit\.png: has no mask"):
        open_cityscapes(tmp_path)


def test_empty_split_is_an_error(tmp_path):
    write_cityscapes(tmp_path)
    with pytest.raises(DataError, match=r"split 'trainval' is empty.*: train, val, test"):
        open_cityscapes(tmp_path, "trainval")


# The small files were shrunk by others after they had been translated, which changed a few outlines.
@pytest.mark.parametrize(
    ("folder", "split", "agreement"),
    [("samples/cityscapes", "train", 1), ("samples/cityscapes", "val", 1), ("samples/cityscapes_small", "val", 0.997)],
)
def test_real_label_ids_agree_with_real_train_ids(folder, split, agreement):
    data = open_cityscapes(shared_data(folder), split)
    mask = data.files(0)[1]
    train_ids = read_mask(mask.with_name(mask.name.replace("_labelIds", "_labelTrainIds")))
    assert (data.load(0).label == train_ids).mean() >= agreement
    assert data.load(0).image.shape[:2] == train_ids.shape
