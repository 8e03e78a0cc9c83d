from __future__ import annotations

import re

import numpy as np
import pytest
from fakes.camvid import COLORS_32, STEMS, write_camvid
from fakes.images import blocks
from fakes.shared import shared_data

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset, describe_layout
from segatlas.data.dataset import SegmentationData
from segatlas.data.datasets import camvid
from segatlas.errors import DataError, UsageError

# The grouping of the 32 colours, in the order of label_colors.txt, written out once more by hand.
GROUPS_32 = [9, 1, 10, 1, 1, 8, 9, 9, 2, 7, 3, 3, 6, 10, 8, 4, 9, 3, 4, 4, 6, 0, 8, 2, 6, 8, 5, 8, 1, 5, 255, 1]


def open_camvid(root, split="train", **keys):
    return create_dataset(DataConfig(name="camvid", root=str(root), **keys), split)


def keys_of(data):
    return tuple(data.key(index) for index in range(len(data)))


@pytest.mark.parametrize("layout", ["index", "colour_folders", "original"])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_all_layouts_give_the_same_split_of_11_classes(tmp_path, layout, split):
    data = open_camvid(write_camvid(tmp_path, layout=layout), split)
    assert isinstance(data, SegmentationData)
    assert keys_of(data) == STEMS[split]
    codes = blocks(1, range(12 if layout == "index" else 32), (36, 48))
    expected = np.where(codes == 11, 255, codes) if layout == "index" else np.array(GROUPS_32)[codes]
    sample = data.load(1)
    assert np.array_equal(sample.label, expected)
    assert sample.image.shape == (36, 48, 3)
    assert len(data.classes) == len(data.palette) == 11
    assert describe_layout(tmp_path) == "camvid"


def test_the_32_colours_are_those_of_the_authors_file():
    assert {tuple(color) for color in COLORS_32.tolist()} == set(camvid.COLORS_32)
    assert len(camvid.COLORS_32) == 32


def test_lists_decide_the_split_of_the_original_layout(tmp_path):
    write_camvid(tmp_path, layout="original")
    (tmp_path / "train.txt").write_text(
        "Seq05VD_f00000.png\n/SegNet/CamVid/train/0016E5_00390.png /SegNet/annot/x.png\n"
    )
    assert keys_of(open_camvid(tmp_path)) == ("0016E5_00390", "Seq05VD_f00000")
    (tmp_path / "val.txt").write_text("0016E5_11111\n")
    with pytest.raises(DataError, match=r"val\.txt: lists 0016E5_11111, which is not in .*701_StillsRaw_full"):
        open_camvid(tmp_path, "val")


def test_foreign_names_need_lists(tmp_path):
    write_camvid(tmp_path, layout="original")
    for folder, end in (("701_StillsRaw_full", ""), ("LabeledApproved_full", "_L")):
        (tmp_path / folder / f"0001TP_006690{end}.png").rename(tmp_path / folder / f"street{end}.png")
    with pytest.raises(DataError, match=r"'street' is not a CamVid name.*train\.txt"):
        open_camvid(tmp_path)


def test_image_without_mask_is_an_error(tmp_path):
    write_camvid(tmp_path)
    (tmp_path / "trainannot" / "0006R0_f00930.png").unlink()
    with pytest.raises(DataError, match=r"0006R0_f00930\.png: has no mask .*trainannot"):
        open_camvid(tmp_path)


def test_code_that_camvid_lacks_is_an_error(tmp_path):
    from fakes.images import save_codes

    write_camvid(tmp_path)
    save_codes(tmp_path / "trainannot" / "0001TP_006690.png", np.full((36, 48), 12))
    with pytest.raises(DataError, match=r"label 12 \(1728 pixels\) in a set of 11 classes"):
        open_camvid(tmp_path).load(0)


def test_empty_split_and_fixed_keys_are_errors(tmp_path):
    write_camvid(tmp_path)
    for path in (tmp_path / "test").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"split 'test' is empty.*: train, val"):
        open_camvid(tmp_path, "test")
    with pytest.raises(
        UsageError, match=r"data\.label_map.* an option of data\.name=pairs or weak or folder; data\.name=camvid has"
    ):
        open_camvid(tmp_path, label_map={0: 0})
    assert len(open_camvid(tmp_path, classes=camvid.CLASSES)) == 3


def test_folder_recipe_on_camvid_says_which_name_to_use(tmp_path):
    write_camvid(tmp_path)
    with pytest.raises(DataError, match=r"it looks like a camvid layout: data\.name=camvid"):
        create_dataset(DataConfig(name="folder", root=str(tmp_path)), "train")


def test_names_and_colours_are_those_of_the_real_sets_table():
    text = (shared_data("camvid") / "README.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (\d+), (\d+), (\d+) \|", text, flags=re.MULTILINE)[:11]
    assert tuple(name for _, name, *_ in rows) == camvid.CLASSES
    assert tuple((int(r), int(g), int(b)) for _, _, r, g, b in rows) == camvid.PALETTE


@pytest.mark.parametrize(("split", "count"), [("train", 367), ("val", 101), ("test", 233)])
def test_real_set_has_its_published_counts_and_the_split_rule_holds(split, count):
    data = open_camvid(shared_data("camvid"), split)
    assert len(data) == count
    assert {camvid.official_split(key) for key in keys_of(data)} == {split}
    label = data.load(0).label
    assert label.shape == (360, 480)
    assert set(np.unique(label)) <= {*range(11), 255}


def test_real_full_size_labels_agree_with_the_small_ones():
    full = open_camvid(shared_data("samples/camvid_fullres"), "val")
    small = open_camvid(shared_data("camvid"), "val")
    assert full.load(0).image.shape == (720, 960, 3)
    index = keys_of(small).index(full.key(0))
    agreement = (full.load(0).label[::2, ::2] == small.load(index).label).mean()
    assert agreement > 0.97


@pytest.mark.parametrize("layout", ["colour_folders", "original"])
def test_the_exact_grouping_has_11_of_the_32_colours_and_ignores_all_others(tmp_path, layout):
    data = open_camvid(write_camvid(tmp_path, layout=layout), grouping="exact")
    codes = blocks(1, range(32), (36, 48))
    by_color = {color: index for index, color in enumerate(camvid.EXACT.values())}
    table = np.array([by_color.get(tuple(color), 255) for color in COLORS_32.tolist()])
    assert sorted(set(table.tolist())) == [*range(11), 255]
    assert np.array_equal(data.load(1).label, table[codes])
    assert data.classes[:2] == ("Bicyclist", "Building")
    assert data.palette[0] == (0, 128, 192)
    grouped = open_camvid(tmp_path)
    assert np.array_equal(grouped.load(1).label, np.array(GROUPS_32)[codes])


def test_the_exact_grouping_of_masks_that_are_grouped_already_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"data\.grouping=exact: .* not the authors' 32 colours"):
        open_camvid(write_camvid(tmp_path), grouping="exact")


@pytest.mark.parametrize("layout", ["index", "colour_folders", "original"])
def test_what_is_ignored_is_a_twelfth_class_where_that_is_asked_for_and_nothing_else_changes(tmp_path, layout):
    root = write_camvid(tmp_path, layout=layout)
    plain, data = open_camvid(root), open_camvid(root, grouping="segnet_12")
    assert (data.classes[:11], len(data.classes)) == (plain.classes, 12)
    assert data.palette == (*plain.palette, (0, 0, 0))
    before, label = plain.load(1).label, data.load(1).label
    assert (before == 255).any()
    assert np.array_equal(label, np.where(before == 255, 11, before))


@pytest.mark.parametrize("layout", ["index", "original"])
def test_trainval_trains_on_both_and_validates_on_test(tmp_path, layout):
    root = write_camvid(tmp_path, layout=layout)
    assert keys_of(open_camvid(root, trainval=True)) == STEMS["train"] + STEMS["val"]
    assert keys_of(open_camvid(root, "val", trainval=True)) == STEMS["test"]
    assert keys_of(open_camvid(root, "test", trainval=True)) == STEMS["test"]
