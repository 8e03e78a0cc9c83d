from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from fakes.folder import write_folder
from fakes.images import blocks, image_of, save_codes, save_image
from fakes.shared import shared_data
from PIL import Image

from segatlas.config.schema import DataConfig
from segatlas.data import create_dataset, describe_layout
from segatlas.data.checks import look_before_training
from segatlas.data.dataset import SegmentationData
from segatlas.data.datasets import DATASETS, dataset_class
from segatlas.data.datasets.folder import find_part, hold_out
from segatlas.data.statistics import describe
from segatlas.errors import DataError, UsageError
from segatlas.recipe import json_schema


def open_folder(root, split="train", seed=0, **keys):
    return create_dataset(DataConfig(name="folder", root=str(root), **keys), split, seed)


def keys_of(data):
    return [data.key(index) for index in range(len(data))]


@pytest.mark.parametrize("layout", ["split_first", "kind_first"])
def test_both_layouts_give_images_and_labels(tmp_path, layout):
    write_folder(tmp_path, layout=layout)
    data = open_folder(tmp_path)
    assert isinstance(data, SegmentationData)
    assert keys_of(data) == ["000", "001", "002", "003", "004", "005"]
    assert len(open_folder(tmp_path, "val")) == 2
    sample = data.load(3)
    raw = blocks(3, (0, 1, 2), (32, 48))
    assert np.array_equal(sample.label, raw)
    assert np.array_equal(sample.image, image_of(raw, 3))
    assert (sample.key, sample.index) == ("003", 3)
    assert data.files(3)[0].name == data.files(3)[1].name == "003.png"


def test_classes_are_counted_over_the_masks_of_all_splits(tmp_path):
    write_folder(tmp_path)
    save_codes(tmp_path / "val" / "masks" / "100.png", blocks(0, (0, 4, 255), (32, 48)))
    data = open_folder(tmp_path)
    assert data.classes == ("class_0", "class_1", "class_2", "class_3", "class_4")
    assert data.palette[:2] == ((0, 0, 0), (128, 0, 0))
    assert np.unique(open_folder(tmp_path, "val").load(0).label).tolist() == [0, 4, 255]


def test_count_is_renewed_when_a_mask_changes(tmp_path):
    write_folder(tmp_path)
    assert len(open_folder(tmp_path).classes) == 3
    save_codes(tmp_path / "train" / "masks" / "000.png", blocks(0, (0, 1, 2, 7), (32, 48)))
    assert len(open_folder(tmp_path).classes) == 8


def test_names_come_from_config_then_json_then_text(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\n\n")
    assert open_folder(tmp_path).classes == ("sky", "road", "car")
    (tmp_path / "classes.json").write_text(json.dumps([{"name": n, "color": [9, 9, i]} for i, n in enumerate("abc")]))
    assert open_folder(tmp_path).classes == ("a", "b", "c")
    assert open_folder(tmp_path).palette == ((9, 9, 0), (9, 9, 1), (9, 9, 2))
    assert open_folder(tmp_path, classes=("x", "y", "z")).classes == ("x", "y", "z")
    (tmp_path / "classes.json").write_text('["p", "q", "r"]')
    assert open_folder(tmp_path).classes == ("p", "q", "r")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"a": 1}', "expected a list"),
        ('["a", "a"]', "class 'a' occurs twice"),
        ("[]", "names no class"),
        ('[{"name": "a", "color": [1, 2]}]', "three integers"),
        ('[{"name": "a", "color": [1, 2, 3]}, {"name": "b"}]', "1 of 2 classes have a colour"),
        ('[{"title": "a"}]', "entry 0"),
    ],
)
def test_bad_class_file_is_named(tmp_path, text, message):
    write_folder(tmp_path)
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(DataError, match=rf"classes\.json: .*{message}"):
        open_folder(tmp_path)


def test_label_beyond_the_named_classes_is_an_error_at_load(tmp_path):
    write_folder(tmp_path, codes=(0, 1, 89))
    with pytest.raises(DataError, match=r"000\.png: label 89 \(\d+ pixels\) in a set of 2 classes"):
        open_folder(tmp_path, classes=("a", "b")).load(0)


@pytest.mark.parametrize("keys", [{}, {"classes": ("ground", "object")}])
def test_black_and_white_masks_are_an_error_that_names_the_repair(tmp_path, keys):
    write_folder(tmp_path, codes=(0, 255))
    with pytest.raises(DataError, match=r'all 8 masks hold only 0 and 255.*"data\.label_map=\{0: 0, 255: 1\}"'):
        open_folder(tmp_path, **keys)


def test_black_and_white_masks_train_with_a_label_map(tmp_path):
    write_folder(tmp_path, codes=(0, 255))
    data = open_folder(tmp_path, label_map={0: 0, 255: 1})
    assert data.classes == ("class_0", "class_1")
    assert np.array_equal(data.load(0).label, blocks(0, (0, 1), (32, 48)))


def test_colour_masks_are_read_by_the_recipes_table(tmp_path):
    write_folder(tmp_path)
    for path in tmp_path.glob("*/masks/*.png"):
        raw = np.asarray(Image.open(path))
        Image.fromarray(np.dstack([raw * 100, raw, raw])).save(path)
    with pytest.raises(DataError, match="is a colour mask"):
        open_folder(tmp_path)
    colors = {"0,0,0": 0, "100,1,1": 1, "200, 2, 2": 255}
    data = open_folder(tmp_path, label_colors=colors)
    assert len(data.classes) == 2
    raw = blocks(0, (0, 1, 2), (32, 48))
    assert np.array_equal(data.load(0).label, np.where(raw == 2, 255, raw))
    with pytest.raises(UsageError, match="'1,2' is not a colour"):
        open_folder(tmp_path, label_colors={"1,2": 0})
    with pytest.raises(UsageError, match="both set"):
        open_folder(tmp_path, label_colors=colors, label_map={0: 0})


def test_without_val_a_seeded_fraction_of_train_is_held_out_and_logged(tmp_path, caplog):
    write_folder(tmp_path, counts={"train": 10})
    with caplog.at_level(logging.INFO):
        val = open_folder(tmp_path, "val", seed=3)
    train = open_folder(tmp_path, "train", seed=3)
    assert len(val) == 2
    assert sorted(keys_of(train) + keys_of(val)) == [f"{index:03d}" for index in range(10)]
    assert f"held 2 of 10 out of train (seed 3): {', '.join(keys_of(val))}" in caplog.text
    assert keys_of(open_folder(tmp_path, "val", seed=3)) == keys_of(val)
    assert any(keys_of(open_folder(tmp_path, "val", seed=seed)) != keys_of(val) for seed in range(5))


def test_a_terminal_names_three_of_the_images_held_out(tmp_path, caplog):
    write_folder(tmp_path, counts={"train": 25})
    with caplog.at_level(logging.INFO):
        val = keys_of(open_folder(tmp_path, "val", seed=3))
    (record,) = [record for record in caplog.records if "held" in record.getMessage()]
    assert record.getMessage().endswith(f"(seed 3): {', '.join(val)}")
    assert record.on_terminal.endswith(f"(seed 3): {', '.join(val[:3])} and 2 more")


def test_held_out_keys_do_not_depend_on_order_and_are_never_all():
    names = [f"p{index}" for index in range(20)]
    assert hold_out(names, 0.25, 1) == hold_out(names[::-1], 0.25, 1)
    assert len(hold_out(names, 0.25, 1)) == 5
    assert len(hold_out(names[:2], 0.99, 1)) == 1
    assert len(hold_out(names[:3], 0.01, 1)) == 1


def test_folder_without_splits_is_all_train(tmp_path):
    write_folder(tmp_path, layout="flat", counts={"train": 5})
    assert len(open_folder(tmp_path)) == 4
    assert len(open_folder(tmp_path, "val")) == 1


def test_subfolders_become_part_of_the_key_and_hidden_files_are_left_out(tmp_path):
    write_folder(tmp_path)
    raw = blocks(0, (0, 1, 2), (32, 48))
    save_image(tmp_path / "train" / "images" / "rome" / "000.jpg", image_of(raw, 0))
    save_codes(tmp_path / "train" / "masks" / "rome" / "000.png", raw)
    (tmp_path / "train" / "images" / "._000.png").write_bytes(b"x")
    (tmp_path / "train" / "images" / "notes.txt").write_text("x")
    assert keys_of(open_folder(tmp_path)) == ["000", "001", "002", "003", "004", "005", "rome/000"]


@pytest.mark.parametrize(("channels", "shape"), [(None, (32, 48, 1)), (3, (32, 48, 3))])
def test_channels_follow_the_images_unless_given(tmp_path, channels, shape):
    write_folder(tmp_path, channels=1)
    data = open_folder(tmp_path, channels=channels)
    assert data.channels == shape[2]
    assert data.load(0).image.shape == shape


def test_one_grey_image_does_not_make_a_colour_set_grey(tmp_path):
    write_folder(tmp_path)
    Image.fromarray(np.zeros((32, 48), np.uint8)).save(tmp_path / "train" / "images" / "000.png")
    data = open_folder(tmp_path)
    assert data.channels == 3
    assert data.load(0).image.shape == (32, 48, 3)


def test_mask_of_another_size_is_an_error(tmp_path):
    write_folder(tmp_path)
    save_codes(tmp_path / "train" / "masks" / "001.png", blocks(0, (0, 1, 2), (16, 24)))
    with pytest.raises(DataError, match=r"masks/001\.png: mask is 24 x 16 pixels, its image .*001\.png is 48 x 32"):
        open_folder(tmp_path).load(1)


def test_mask_drawn_without_the_exif_turn_gets_a_hint(tmp_path):
    write_folder(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "train" / "images" / "001.png"
    Image.open(path).save(path, exif=exif)
    with pytest.raises(DataError, match="EXIF orientation"):
        open_folder(tmp_path).load(1)


def test_image_without_mask_is_an_error_that_names_both(tmp_path):
    write_folder(tmp_path)
    masks = tmp_path / "train" / "masks"
    (masks / "002.png").rename(masks / "002_mask.png")
    with pytest.raises(
        DataError, match=r"images/002\.png: has no mask in .*\(1 of 6 .*nearest mask is .*002_mask\.png"
    ):
        open_folder(tmp_path)


def test_mask_without_image_is_left_out_with_a_warning(tmp_path, caplog):
    write_folder(tmp_path)
    (tmp_path / "train" / "images" / "002.png").unlink()
    assert len(open_folder(tmp_path)) == 5
    assert "1 mask(s) of train have no image" in caplog.text


def test_same_stem_twice_is_an_error(tmp_path):
    write_folder(tmp_path)
    Image.open(tmp_path / "train" / "images" / "002.png").save(tmp_path / "train" / "images" / "002.jpg")
    with pytest.raises(DataError, match=r"002\.png: has the stem of another file"):
        open_folder(tmp_path)


def test_find_part_tells_faults_without_raising(tmp_path):
    write_folder(tmp_path)
    images, masks = tmp_path / "train" / "images", tmp_path / "train" / "masks"
    (masks / "001.png").unlink()
    (images / "002.png").unlink()
    Image.open(images / "003.png").save(images / "003.bmp")
    part = find_part(tmp_path, "train")
    assert [item.key for item in part.items] == ["000", "003", "004", "005"]
    assert part.images_without_mask == (images / "001.png",)
    assert part.masks_without_image == (masks / "002.png",)
    assert part.duplicates == (images / "003.png",)
    assert find_part(tmp_path, "test").items == ()


def test_masks_may_be_missing_in_test_only(tmp_path):
    write_folder(tmp_path, counts={"train": 2, "val": 2, "test": 2})
    (tmp_path / "test" / "masks" / "200.png").unlink()
    data = open_folder(tmp_path, "test")
    assert data.files(0)[1] is None
    assert data.load(0).label is None
    assert data.load(1).label is not None


def test_empty_split_is_an_error_that_names_the_others(tmp_path):
    write_folder(tmp_path)
    with pytest.raises(DataError, match=r"split 'test' is empty: expected images in test/images/.*: train, val"):
        open_folder(tmp_path, "test")


def test_root_that_is_missing_names_the_nearest(tmp_path):
    write_folder(tmp_path / "streets")
    with pytest.raises(DataError, match=r"data\.root is missing; the nearest name there is streets"):
        open_folder(tmp_path / "strets")
    with pytest.raises(DataError, match="is a file"):
        open_folder(tmp_path / "streets" / "train" / "images" / "000.png")
    with pytest.raises(UsageError, match=r"data\.root is not set"):
        create_dataset(DataConfig(name="folder"), "train")


def test_folder_of_another_layout_says_what_it_holds(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"is not laid out as data\.name=folder: .*it holds images/"):
        open_folder(tmp_path)


@pytest.mark.parametrize("keys", [{}, {"classes": ("a", "b")}])
def test_masks_saved_as_jpeg_stop_the_count_or_the_load(tmp_path, keys):
    write_folder(tmp_path, codes=(0, 200))
    for path in tmp_path.glob("*/masks/*.png"):
        Image.open(path).save(path.with_suffix(".jpg"))
        path.unlink()
    with pytest.raises(DataError, match="JPEG"):
        open_folder(tmp_path, **keys).load(0)


@pytest.mark.parametrize(("codes", "message"), [((0,), "only class 0"), ((0, 254, 300), "label 300 would make 301")])
def test_impossible_numbers_of_classes_are_errors(tmp_path, codes, message):
    write_folder(tmp_path)
    for path in tmp_path.glob("*/masks/*.png"):
        Image.fromarray(blocks(0, codes, (32, 48)).astype(np.uint16)).save(path)
    with pytest.raises(DataError, match=message):
        open_folder(tmp_path)


@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
@pytest.mark.parametrize("header", ["", "image{}mask\n"])
def test_lists_of_pairs_replace_the_layout(tmp_path, separator, header):
    write_folder(tmp_path / "set", counts={"train": 4})
    lines = [f"train/images/{i:03d}.png{separator}train/masks/{i:03d}.png" for i in (3, 0, 1)]
    (tmp_path / "set" / "some.txt").write_text(header.format(separator) + "\n".join(lines) + "\n\n# the end\n")
    data = open_folder(tmp_path / "set", lists={"train": "some.txt", "val": "some.txt"})
    assert keys_of(data) == ["train/images/003", "train/images/000", "train/images/001"]
    assert np.array_equal(data.load(0).label, blocks(3, (0, 1, 2), (32, 48)))


def test_lists_are_found_without_a_root_relative_to_themselves(tmp_path):
    write_folder(tmp_path, counts={"train": 3})
    (tmp_path / "train" / "all.csv").write_text("\n".join(f"images/{i:03d}.png,masks/{i:03d}.png" for i in range(3)))
    (tmp_path / "train" / "test.csv").write_text("images/000.png\nimages/001.png,\n")
    lists = {"train": str(tmp_path / "train" / "all.csv"), "test": str(tmp_path / "train" / "test.csv")}
    data = create_dataset(DataConfig(lists=lists), "train")
    assert len(data) == 2
    assert data.key(0).startswith("images/")
    assert len(create_dataset(DataConfig(lists=lists), "val")) == 1
    assert create_dataset(DataConfig(lists=lists), "test").load(1).label is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train/images/000.png", "line 1: train/images/000.png has no mask"),
        ("a,b\ntrain/images/009.png,train/masks/009.png", "line 2: no file train/images/009.png"),
        ("train/images/000.png,train/masks/000.png\n" * 2, "line 2: .* is listed twice"),
        ("train/images/000.png,train/masks/000.png,x", "line 1: 3 fields"),
    ],
)
def test_faults_in_lists_are_named_by_line(tmp_path, content, message):
    write_folder(tmp_path)
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=rf"a\.csv: {message}"):
        open_folder(tmp_path, lists={"train": "a.csv"})


def test_missing_list_is_named(tmp_path):
    write_folder(tmp_path)
    with pytest.raises(DataError, match=r"no such list \(data\.lists\.train\)"):
        open_folder(tmp_path, lists={"train": "a.csv"})


def test_every_name_in_the_table_is_a_choice_of_the_recipe_and_says_its_own_name():
    choices = json_schema()["$defs"]["DataConfig"]["properties"]["name"]["enum"]
    assert set(DATASETS) == set(choices)
    for name in DATASETS:
        assert dataset_class(name).name == name


def test_layouts_are_recognised(tmp_path):
    write_folder(tmp_path / "a")
    write_folder(tmp_path / "b", layout="flat")
    (tmp_path / "c").mkdir()
    assert [describe_layout(tmp_path / name) for name in "abcd"] == ["folder", "folder", None, None]


def test_real_jpeg_masks_are_refused_with_the_repair():
    with pytest.raises(DataError, match=r"is a JPEG mask \(5 of 5 are\).*segatlas data check --fix"):
        open_folder(shared_data("samples/kvasir/Kvasir-SEG"))


def test_one_unreadable_mask_is_named_by_stats_and_stops_no_other_and_training_refuses_it(tmp_path):
    root = write_folder(tmp_path / "data", codes=(0, 1, 2))
    damaged = sorted((root / "train" / "masks").iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:60])
    data = create_dataset(DataConfig(name="folder", root=str(root)), "train")
    assert len(data.classes) == 3
    assert [error.path for error in data.unread] == [damaged]
    assert [damaged.name in text for text in describe(data).skipped] == [True]
    look = look_before_training(DataConfig(name="folder", root=str(root)), [data], count=1)
    assert damaged in {path for finding in look.errors for path in finding.files}
    for path in root.rglob("masks/*.png"):
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError):
        create_dataset(DataConfig(name="folder", root=str(root)), "train")
