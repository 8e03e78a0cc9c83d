"""Lists of results, and results that come one after the other."""

from __future__ import annotations

import numpy as np
import pytest
from fakes.segmentations import segmentation
from PIL import Image

from segatlas.errors import TaskError, UsageError
from segatlas.inference import Segmentations, SegmentationStream


def several(*sources, task="semantic"):
    return Segmentations(segmentation(task, source=source) for source in sources)


def names(paths, folder):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_a_list_of_results_is_a_list_whose_slices_draw_themselves_too():
    results = several("a.png", "b.png", "c.png")
    assert results == [*results]
    assert type(results[1:]) is Segmentations
    assert results[-1].source == "c.png"
    assert repr(results[:1]) == "[\n  Segmentation(a.png, 24x36: ground 87.6 %, square 8.2 %, disc 4.2 %),\n]"
    assert (repr(Segmentations()), Segmentations()._repr_png_(), Segmentations()._repr_html_()) == ("[]", None, None)
    assert [one["source"] for one in results.to_dict()] == ["a.png", "b.png", "c.png"]
    with pytest.raises(UsageError, match="no results"):
        Segmentations().grid()


@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
def test_a_grid_has_a_row_more_for_more_results_and_shows_all_colours(task):
    two, four = several(*"ab", task=task).grid(columns=2), several(*"abcd", task=task).grid(columns=2)
    assert four.shape[0] > 1.5 * two.shape[0]
    assert four.shape[1] == two.shape[1]
    for color in segmentation().palette[1:]:
        assert (four == color).all(axis=-1).any()  # in the legend
    assert several("a.png")._repr_png_().startswith(b"\x89PNG")
    assert "2 images" in several("a.png", "b.png")._repr_html_()


def test_results_of_other_classes_stand_in_one_grid_without_a_legend():
    other = segmentation(classes=("x", "y", "z"))
    assert Segmentations([segmentation(), other]).grid().shape[0] < Segmentations([segmentation()] * 2).grid().shape[0]


def test_a_list_is_saved_by_stems_and_where_two_are_alike_by_their_folders(tmp_path):
    assert names(several("p/a.png", "q/b.png").save(tmp_path, "mask"), tmp_path) == ["a_mask.png", "b_mask.png"]
    alike = several("p/a.png", "p/x/a.png", "")
    assert names(alike.save(tmp_path / "more", "json"), tmp_path / "more") == ["a.json", "x/a.json", "image_3.json"]


def test_two_images_whose_results_would_have_one_name_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UsageError, match=r"p/a\.png and p/a\.jpg would both be written to .*/a_\*"):
        several("p/a.png", "p/a.jpg").save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match=r"grid\.png: is the name of a file; several results go into a folder"):
        several("a.png").save(tmp_path / "grid.png")
    (tmp_path / "file.png").write_bytes(b"")
    with pytest.raises(UsageError, match="is a file; several results go into a folder"):
        several("a.png").save(tmp_path / "file.png")


def test_a_stream_makes_a_result_when_it_is_asked_for_and_saves_those_to_come(tmp_path):
    made = []

    def images():
        for name in ("a.png", "b.png", "c.png"):
            made.append(name)
            yield segmentation(source=name)

    stream = SegmentationStream(images(), {"c.png": "deep/c"})
    assert made == []
    assert next(stream).source == "a.png"
    assert made == ["a.png"]
    assert repr(stream) == "SegmentationStream(1 of 1 given so far; each is made when it is asked for)"
    assert names(stream.save(tmp_path, "mask"), tmp_path) == ["b_mask.png", "deep/c_mask.png"]
    assert np.asarray(Image.open(tmp_path / "b_mask.png")).shape == (24, 36)
    assert list(stream) == []


def test_a_stream_that_is_closed_takes_nothing_more():
    stream = SegmentationStream(segmentation(source=name) for name in "ab")
    next(stream)
    stream.close()
    assert list(stream) == []


def test_a_kind_that_the_results_do_not_hold_is_told(tmp_path):
    with pytest.raises(TaskError, match=r"predict\(\.\.\., confidence=True\)"):
        several("a.png").save(tmp_path, "confidence")
