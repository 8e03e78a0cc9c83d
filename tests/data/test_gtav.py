from __future__ import annotations

import numpy as np
import pytest
from fakes.gtav import BROKEN, COLORS_35, STEMS, write_gtav
from fakes.images import blocks

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset
from segatlas.data.checks import examine
from segatlas.data.datasets import cityscapes, gtav
from segatlas.errors import DataError


def open_gtav(root, split="train", **keys):
    return create_dataset(DataConfig(name="gtav", root=str(root), **keys), split)


def keys_of(data):
    return tuple(data.key(index) for index in range(len(data)))


def test_palette_masks_hold_label_ids_and_not_the_greys_of_their_colours(tmp_path):
    data = open_gtav(write_gtav(tmp_path))
    assert keys_of(data) == STEMS["train"]
    assert np.array_equal(data.load(1).label, blocks(2, range(35), (36, 48)))
    assert len(data.classes) == len(data.palette) == 35
    assert (data.classes[7], data.classes[34]) == ("road", "license plate")


def test_colour_masks_give_the_first_id_that_has_a_colour(tmp_path):
    label = open_gtav(write_gtav(tmp_path, colors=True)).load(1).label
    codes = blocks(2, range(35), (36, 48))
    table = np.arange(35)
    table[:4], table[18], table[34] = 0, 17, 26
    assert np.array_equal(label, table[codes])


def test_every_colour_of_the_masks_is_known():
    assert {tuple(color) for color in COLORS_35.tolist()} == set(gtav.COLORS)


@pytest.mark.parametrize("colors", [False, True])
def test_it_may_have_the_classes_of_cityscapes(tmp_path, colors):
    data = open_gtav(write_gtav(tmp_path, colors=colors), grouping="cityscapes")
    codes = blocks(2, range(35), (36, 48))
    table = np.array([cityscapes.TRAIN_ID_OF_LABEL_ID.get(code, 255) for code in range(35)])
    if colors:
        table[18], table[34] = 5, 13  # which have the colours of poles and cars
    assert np.array_equal(data.load(1).label, table[codes])
    assert data.classes == cityscapes.CLASSES


def test_a_pair_of_two_sizes_is_left_out_and_named(tmp_path):
    root = write_gtav(tmp_path, broken=True)
    assert keys_of(open_gtav(root)) == STEMS["train"]
    found = [finding for finding in examine(root).findings if finding.kind == "left_out"]
    assert [finding.files for finding in found] == [(root / "images" / f"{BROKEN}.png",)]
    assert found[0].fault == "left out: its mask is 40 x 32 pixels, the image 48 x 36"
    assert found[0].severity == "warning"
    assert examine(root).ok


def test_trainval_trains_on_both_lists_and_validates_on_test(tmp_path):
    root = write_gtav(tmp_path)
    assert keys_of(open_gtav(root, trainval=True)) == STEMS["train"] + STEMS["val"]
    assert keys_of(open_gtav(root, "val", trainval=True)) == STEMS["test"]


def test_a_listed_image_that_is_not_there_is_an_error(tmp_path):
    root = write_gtav(tmp_path)
    (root / "val.txt").write_text("00004\n99999\n")
    with pytest.raises(DataError, match=r"99999\.png: no such image, listed in .*val\.txt"):
        open_gtav(root, "val")


def test_a_list_that_is_no_text_is_an_error(tmp_path):
    root = write_gtav(tmp_path)
    (root / "val.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"val\.txt"):
        open_gtav(root, "val")
