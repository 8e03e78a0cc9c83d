from __future__ import annotations

import json

import numpy as np
import pytest
from fakes.explained import SIZE, finder, image, predictor

from segatlas import explain
from segatlas.data.formats.masks import write_mask
from segatlas.drawing.maps import LINE
from segatlas.errors import DataError, UsageError
from segatlas.explain.maps import KINDS
from segatlas.explain.palettes import find_names

COLORS = ((1, 2, 3), (40, 50, 60), (70, 80, 90), (100, 110, 120))


@pytest.fixture
def labels(tmp_path):
    array = np.zeros(SIZE, np.uint8)
    array[:, 40:] = 2
    array[:5] = 255
    write_mask(tmp_path / "mask.png", array)
    return tmp_path / "mask.png"


@pytest.mark.parametrize(
    "make",
    [lambda: predictor("pspnet"), lambda: predictor("eomt", "panoptic"), finder],
    ids=["map", "segments", "objects"],
)
def test_every_map_of_a_result_of_each_task_has_the_images_size(make):
    found = explain.Labels.of(make().predict(image()))
    for kind in KINDS:
        assert explain.drawn_map(found, kind).shape == (*SIZE, 3)
    assert explain.drawn_map(found, "map", legend=True).shape[0] > SIZE[0]
    one, two = (explain.map_figure([found] * count, names=["a.png", "b.png"]) for count in (1, 2))
    assert two.shape[0] > one.shape[0]


def test_a_result_is_drawn_in_any_palette():
    result = predictor("pspnet").predict(image())
    drawn = explain.drawn_map(explain.Labels.of(result, COLORS), "map")
    assert np.array_equal(drawn, np.asarray(COLORS, np.uint8)[result.semantic])


def test_a_mask_file_is_drawn_with_names_and_ignored_pixels(labels):
    found = explain.Labels.read(image(), labels, palette=COLORS, classes=None)
    drawn = explain.drawn_map(found, "map")
    assert tuple(drawn[20, 5]) == COLORS[0]
    assert tuple(drawn[20, 60]) == COLORS[2]
    assert tuple(drawn[0, 0]) == (0, 0, 0)
    assert found.classes == ("class_0", "class_1", "class_2")
    assert tuple(explain.drawn_map(found, "boundary")[20, 39]) == LINE


def test_a_map_of_objects_is_drawn_object_by_object(tmp_path):
    codes = np.zeros(SIZE, np.uint16)
    codes[10:30, 10:30], codes[10:30, 30:50] = 1001, 1002
    write_mask(tmp_path / "objects.png", codes)
    found = explain.Labels.read(image(), objects=tmp_path / "objects.png", palette=COLORS)
    drawn = explain.drawn_map(found, "colored")
    assert tuple(drawn[20, 29]) == tuple(drawn[20, 30]) == COLORS[1]
    assert tuple(drawn[20, 20]) != COLORS[1]
    assert found.class_map()[0, 0] == len(found.classes)


def test_plain_numbers_of_objects_are_of_class_0_unless_a_table_says_else(tmp_path):
    codes = np.zeros(SIZE, np.uint8)
    codes[10:30, 10:30], codes[10:30, 30:50] = 1, 2
    file = tmp_path / "objects.png"
    write_mask(file, codes)
    assert explain.Labels.read(image(), objects=file).class_map()[20, 20] == 0
    file.with_suffix(".json").write_text('{"1": 3, "2": 1}')
    found = explain.Labels.read(image(), objects=file)
    assert (found.class_map()[20, 20], found.class_map()[20, 40]) == (3, 1)


def test_label_files_that_do_not_fit_are_told(labels, tmp_path):
    with pytest.raises(DataError, match=r"mask.png: is 83 x 60 pixels, the image 9 x 8"):
        explain.Labels.read(image((8, 9)), labels)
    with pytest.raises(UsageError, match="expected a mask of classes or a map of objects"):
        explain.Labels.read(image())
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    with pytest.raises(UsageError, match=r"names 2 classes, and the labels have 3"):
        explain.Labels.read(image(), labels, classes=tmp_path / "classes.txt")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "#010203\n40 50 60 road\n\n(70, 80, 90)\n646e78\n"),
        ("a.json", json.dumps([[1, 2, 3], "#28323c", {"name": "x", "color": [70, 80, 90]}, [100, 110, 120]])),
    ],
)
def test_palette_files_are_read(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert explain.find_palette(tmp_path / name, 4) == COLORS
    with pytest.raises(UsageError, match="has 4 colours, and there are 5 classes"):
        explain.find_palette(tmp_path / name, 5)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "#010203\nred\n", "line 2 is 'red'; expected a colour"),
        ("a.txt", "1 2 256\n", "line 1 is '1 2 256'"),
        ("a.txt", "\n", "holds no colour"),
        ("a.json", "[[1, 2]]", "entry 1 is"),
        ("a.json", "{}", "expected a list of colours, got dict"),
        ("a.json", "[", "is not JSON"),
    ],
)
def test_palette_files_with_faults_name_the_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"a\.\w+: {message}".replace("(", r"\(")):
        explain.find_palette(tmp_path / name, 1)


def test_built_in_palettes_are_known_by_name():
    assert {"default", "voc", "cityscapes", "ade20k", "camvid"} <= set(explain.palette_names())
    assert explain.find_palette("cityscapes", 2) == ((128, 64, 128), (244, 35, 232))
    assert len(explain.find_palette("default", 20)) == 20
    with pytest.raises(UsageError, match="did you mean 'cityscapes'"):
        explain.find_palette("citiscapes", 2)


def test_names_of_a_dataset_are_known():
    assert find_names("cityscapes", 2)[0] == "road"
    with pytest.raises(UsageError, match="classes: got 'x'"):
        find_names("x", 2)
