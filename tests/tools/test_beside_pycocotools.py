"""Files of predicted objects take the truth's numbers of images and classes, and what is missing is told."""

import json

import pytest

import beside_pycocotools

TRUTH = {
    "images": [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}],
    "categories": [{"id": 3, "name": "nucleus"}],
}


def write(folder, stem, scores=(0.5,), name="nucleus"):
    objects = [{"category_id": 1, "segmentation": {"size": [2, 2], "counts": "04"}, "score": one} for one in scores]
    content = {"categories": [{"id": 1, "name": name}], "annotations": objects}
    (folder / f"{stem}_coco.json").write_text(json.dumps(content))


def test_objects_take_the_numbers_of_the_truth(tmp_path):
    write(tmp_path, "a", (0.123456789, 0.5))
    write(tmp_path, "b", ())
    found = beside_pycocotools.found_objects(TRUTH, tmp_path)
    assert [(one["image_id"], one["category_id"], one["score"]) for one in found] == [(7, 3, 0.123456789), (7, 3, 0.5)]


def test_an_image_without_a_file_is_told(tmp_path):
    write(tmp_path, "a")
    with pytest.raises(SystemExit, match=r"differ: \['b'\]"):
        beside_pycocotools.found_objects(TRUTH, tmp_path)


def test_an_unknown_class_is_told(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "b", name="cell")
    with pytest.raises(SystemExit, match=r"b_coco\.json: the class cell is none of"):
        beside_pycocotools.found_objects(TRUTH, tmp_path)


def test_stuff_is_left_out_where_it_is_named(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "b", name="ground")
    found = beside_pycocotools.found_objects(TRUTH, tmp_path, ["ground"])
    assert [one["image_id"] for one in found] == [7]
