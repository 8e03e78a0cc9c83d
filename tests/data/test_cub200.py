"""CUB-200-2011: which pixels are bird by how many annotators, and how the lists divide the images."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.cub200 import write_cub200
from PIL import Image

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.checks import examine
from segatlas.errors import DataError


def cfg(root, **own):
    return DataConfig(name="cub200", root=str(root), **own)


def test_bird_is_what_half_of_five_or_any_marked(tmp_path):
    write_cub200(tmp_path)
    half, any_ = (create_dataset(cfg(tmp_path, agreement=word), "test") for word in ("half", "any"))
    for index in range(len(half)):
        agreement = np.array(Image.open(half.files(index)[1])) / 51
        assert set(np.unique(agreement)) == {0, 1, 2, 3, 4, 5}
        assert np.array_equal(half.load(index).label, agreement >= 2.5)
        assert np.array_equal(any_.load(index).label, agreement > 0)


def test_the_lists_divide_the_images_and_val_is_held_out_of_train(tmp_path):
    write_cub200(tmp_path, apart=True)
    keys = {}
    for split in ("train", "val", "test"):
        data = create_dataset(cfg(tmp_path), split)
        keys[split] = {data.key(index) for index in range(len(data))}
    assert {split: len(names) for split, names in keys.items()} == {"train": 5, "val": 1, "test": 2}
    assert len(set().union(*keys.values())) == 8
    assert all(name.startswith(("001.", "002.")) for name in keys["train"])


def test_a_mask_on_which_no_annotators_agree_is_refused_with_its_file(tmp_path):
    write_cub200(tmp_path, least=2)
    data = create_dataset(cfg(tmp_path), "test")
    with pytest.raises(DataError) as caught:
        data.load(0)
    assert str(caught.value).startswith(f"{data.files(0)[1]}: no pixel was marked as bird by half of the five")
    assert "(at most by 2)" in str(caught.value)
    assert "data.agreement=any takes what one of them marked" in str(caught.value)
    assert len(next(one for one in examine(cfg(tmp_path)).errors if one.kind == "unreadable").files) == 8
    assert create_dataset(cfg(tmp_path, agreement="any"), "test").load(0).label.any()
    assert examine(cfg(tmp_path, agreement="any")).ok


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train_test_split.txt", "1 1\n", "image 2 is in one of images.txt and train_test_split.txt only"),
        ("images.txt", "1 2 3\n", "line 1: got '1 2 3', expected a number of its own and a word"),
        ("images.txt", None, "no such image, listed in"),
    ],
)
def test_lists_that_do_not_fit_are_told(tmp_path, name, change, message):
    path = write_cub200(tmp_path) / "CUB_200_2011" / name
    path.write_text(path.read_text().replace("_0001_", "_0009_") if change is None else change)
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        create_dataset(cfg(tmp_path), "train")
    assert not examine(cfg(tmp_path)).ok
