from __future__ import annotations

from segatlas.conversion.class_lists import class_list
from segatlas.data.datasets import dataset_class
from segatlas.palette import default_palette

CITYSCAPES = tuple(dataset_class("cityscapes").classes)


def test_names_in_the_file_win_where_their_number_agrees():
    listed = class_list(2, ("sky", "road"), ((1, 2, 3), (4, 5, 6)), "cityscapes")
    assert (listed.classes, listed.palette, listed.note) == (("sky", "road"), ((1, 2, 3), (4, 5, 6)), "")
    assert class_list(2, ("sky", "road"), (), "").palette == default_palette(2)


def test_then_the_data_set_that_the_settings_name():
    listed = class_list(19, ("sky", "road"), (), "cityscapes")
    assert listed.classes == CITYSCAPES
    assert listed.palette == tuple(dataset_class("cityscapes").palette)
    assert listed.note == ""


def test_then_the_well_known_data_set_of_that_number_with_a_note():
    assert class_list(19, (), (), "").classes == CITYSCAPES
    assert "cityscapes, by their number (19)" in class_list(19, (), (), "").note
    assert class_list(21, (), (), "").classes[0] == "background"


def test_names_of_another_data_set_are_not_taken_by_number():
    assert class_list(19, (), (), "BDD100KDataset").classes[:2] == ("class_0", "class_1")


def test_else_classes_are_numbered():
    listed = class_list(3, (), (), "cityscapes")
    assert listed.classes == ("class_0", "class_1", "class_2")
    assert listed.palette == default_palette(3)
    assert "'class_0' to 'class_2': the file has none" in listed.note


def test_one_class_without_a_name_is_told_alone_and_names_of_another_number_are_told():
    assert class_list(1, (), (), "").note == "the class name is 'class_0': the file has none"
    assert class_list(3, ("sky", "road"), (), "").note.endswith("2 names were found for 3 classes")
    assert "cityscapes, by their number (19); 1 name was found" in class_list(19, ("sky",), (), "").note
