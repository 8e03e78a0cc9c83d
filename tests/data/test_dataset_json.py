"""What values of label volumes mean, as `dataset.json` says it."""

from __future__ import annotations

import json

import pytest

from segatlas.data.formats.classes import read_classes
from segatlas.data.formats.dataset_json import read_labels
from segatlas.errors import DataError


@pytest.mark.parametrize("content", [None, [], {}, {"name": "Liver"}])
def test_a_folder_without_labels_in_dataset_json_names_none(tmp_path, content):
    if content is not None:
        (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert read_labels(tmp_path) is None


@pytest.mark.parametrize(
    ("labels", "names", "label_map"),
    [
        ({"tumour": 1, "background": 0}, ("background", "tumour"), {0: 0, 1: 1}),
        ({"1": "tumour", "0": "background"}, ("background", "tumour"), {0: 0, 1: 1}),
        ({"background": 0, "b": 10, "a": 9}, ("background", "a", "b"), {0: 0, 9: 1, 10: 2}),
        ({"background": 0, "a": 1, "ignore": 2}, ("background", "a"), {0: 0, 1: 1, 2: 255}),
    ],
)
def test_both_forms_of_labels_are_ordered_by_value(tmp_path, labels, names, label_map):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    found = read_labels(tmp_path)
    assert found is not None
    assert (found.names, found.label_map) == (names, label_map)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ('{"labels": ["a", "b"]}', 'labels is ["a", "b"]; expected'),
        ('{"labels": {}}', "labels is {}; expected"),
        ('{"labels": {"a": 0, "b": [1, 2]}}', "'b' is a region of several values"),
        ('{"labels": {"a": 0, "b": 0}}', "the value 0 is given twice"),
        ('{"labels": {"0": "a", "1": "a"}}', "the name 'a' is given twice"),
        ('{"labels": {"a": -1}}', "got 'a': -1; expected"),
        ('{"labels": {"a": true}}', "got 'a': true; expected"),
        ('{"labels": {"ignore": 1}}', "0 classes"),
    ],
)
def test_labels_of_another_form_are_refused_with_the_file(tmp_path, text, message):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError) as caught:
        read_labels(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'dataset.json'}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({"background": 0, "roof": 1}, ("background", "roof")),
        ({"0": "background", "1": "roof"}, ("background", "roof")),
        ({"background": 0, "roof": 1, "ignore": 2}, ("background", "roof")),
        ({"background": 0, "roof": 2}, None),  # values that are no indices
        ({"background": 0, "roof": [1, 2]}, None),
        ([1], None),
    ],
)
def test_classes_of_a_folder_are_those_of_dataset_json_where_it_says_them_plainly(tmp_path, labels, names):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    table = read_classes(tmp_path)
    assert (None if table is None else table.names) == names
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert read_classes(tmp_path).names == ("a", "b")
