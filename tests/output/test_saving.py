"""Results under names of the caller's choice."""

from __future__ import annotations

import json

import numpy as np
import pytest
from fakes.segmentations import CLASS_MAP, segmentation
from PIL import Image

from segatlas.errors import DataError, TaskError, UsageError
from segatlas.inference import Segmentation
from segatlas.output import kinds_of, result_names, save_result
from segatlas.output.kinds import ending_of
from segatlas.output.saving import is_folder, stem_of, task_of
from segatlas.tasks import TASKS


@pytest.mark.parametrize("task", TASKS)
def test_the_task_of_a_result_follows_from_what_it_holds(task):
    assert task_of(segmentation(task)) == task
    with pytest.raises(TaskError, match="nothing in it"):
        task_of(segmentation("semantic", class_map=None))


@pytest.mark.parametrize("task", TASKS)
def test_every_kind_of_every_task_is_written_under_the_name_that_says_it(task, tmp_path):
    result = segmentation(task, confidence=np.ones((24, 36), np.float32))
    for kind in TASKS[task].writers:
        (by_name,) = save_result(result, tmp_path / f"a{ending_of(kind)}")
        (by_kind,) = save_result(result, f"{tmp_path}/folder/", kind, name="a")
        assert by_kind.name == by_name.name
        assert by_kind.read_bytes() == by_name.read_bytes()


def test_a_kind_alone_is_a_name_and_any_other_image_is_the_overlay(tmp_path):
    result = segmentation()
    save_result(result, tmp_path / "mask.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mask.png")), CLASS_MAP)
    for name in ("a.png", "a.jpg", "a.webp", "a.tif", "a.bmp"):
        save_result(result, tmp_path / name)
        assert Image.open(tmp_path / name).size[1] > 24  # with legend
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), result.overlay())
    save_result(result, tmp_path / "x.png", "color")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), result.mask_image())
    save_result(result, tmp_path / "a_color.webp")
    assert Image.open(tmp_path / "a_color.webp").size == (36, 24)


def test_a_folder_gets_the_usual_kinds_of_the_task_called_by_the_image(tmp_path):
    for task in TASKS:
        paths = save_result(segmentation(task), tmp_path / task)
        assert [path.name for path in paths] == [f"street{ending_of(kind)}" for kind in kinds_of(task, None)]
    (path,) = save_result(segmentation(source=""), tmp_path / "nameless", ["json"])
    assert json.loads(path.read_text())["classes"][1]["pixels"] == 71
    assert path.name == "image.json"


@pytest.mark.parametrize(
    ("name", "kinds", "told"),
    [
        ("a.xyz", None, r"no file of a result ends with '.xyz'; possible are mask \(NAME_mask.png\), overlay"),
        ("a_mask.jpg", None, "mask is written without loss, as .png; got .jpg"),
        ("a_instances.png", None, "a result of the task semantic has no instances; possible are"),
        ("a.geojson", None, "a result of the task semantic has no geojson"),
        ("a.png", "masks", "'masks' is no kind; possible are"),
        ("a.png", "json", "json is a .json file; got .png"),
        ("a.png", ["mask", "overlay"], r"one file for 2 kinds \(mask, overlay\); name a folder"),
        ("street.png", None, "is the image itself and would be overwritten"),
    ],
)
def test_a_name_that_does_not_suit_is_refused_and_nothing_is_written(name, kinds, told, tmp_path):
    (tmp_path / "street.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match=told):
        save_result(segmentation(source=str(tmp_path / "street.png")), tmp_path / name, kinds)
    assert [path.name for path in tmp_path.iterdir()] == ["street.png"]
    assert (tmp_path / "street.png").read_bytes() == b"mine"


def test_what_a_kind_needs_and_the_result_does_not_hold_is_told(tmp_path):
    with pytest.raises(TaskError, match="does not hold its image"):
        save_result(segmentation().without_image(), tmp_path / "a_boundary.png")
    with pytest.raises(TaskError, match="confidence=True"):
        save_result(segmentation(), tmp_path / "a_confidence.png")
    (tmp_path / "in_the_way").write_text("")
    with pytest.raises(DataError, match="in_the_way"):
        save_result(segmentation(), tmp_path / "in_the_way" / "a.png")


def test_names_follow_files_addresses_and_places(tmp_path):
    assert result_names(["p/a.png", "b.tif", "", "https://h/x/c%20d.png"]) == ["a", "b", "image_3", "c d"]
    assert result_names(["p/q/a.png", "p/a.png", ""]) == ["q/a", "a", "image_3"]
    assert result_names(["p/a.png", "p/a.png"]) == ["a", "a"]
    assert (stem_of("https://h/..%2F..%2Fetc.png"), stem_of("https://h/"), stem_of("")) == ("etc", "h", "")
    assert [is_folder(path) for path in (tmp_path, "out", "out.v2/", "a.png")] == [True, True, True, False]


def test_a_record_is_what_the_json_file_holds(tmp_path):
    for task in TASKS:
        result: Segmentation = segmentation(task)
        (path,) = save_result(result, tmp_path / task, ["json"])
        assert json.loads(path.read_text()) == result.to_dict()
