from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from segatlas.data.formats.masks import read_mask, write_mask
from segatlas.errors import DataError, UsageError
from segatlas.explain.boundary_files import NONE_COLOR, write_boundary_labels
from segatlas.structures.class_boundaries import class_boundaries


def labels() -> np.ndarray:
    made = np.zeros((20, 24), np.uint8)
    made[5:15, 6:16] = 1
    made[15:, 18:] = 2
    made[0, 0] = 255
    return made


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "masks/deep").mkdir(parents=True)
    write_mask(tmp_path / "masks/a.png", labels())
    write_mask(tmp_path / "masks/deep/b.png", labels().T)
    return tmp_path / "masks"


def test_a_folder_becomes_masks_with_a_class_none_and_a_color_each(folder, tmp_path):
    written = write_boundary_labels([folder], tmp_path / "out", width=1)
    assert written.rest == 3
    assert sorted(written.files) == [tmp_path / "out/a.png", tmp_path / "out/deep/b.png"]
    expected = class_boundaries(labels(), width=1, rest=3)
    assert np.array_equal(read_mask(tmp_path / "out/a.png"), expected)
    assert written.fraction == pytest.approx(((expected != 3) & (expected != 255)).sum() / (labels() != 255).sum())
    colors = np.asarray(Image.open(tmp_path / "out/a.png").convert("RGB"))
    assert tuple(colors[10, 10]) == NONE_COLOR
    assert len({tuple(color) for color in colors.reshape(-1, 3)}) == 5


def test_other_pixels_may_be_ignored_and_another_code_may_mean_no_label(folder, tmp_path):
    write_boundary_labels([folder / "a.png"], tmp_path / "out", rest="ignore")
    assert np.array_equal(read_mask(tmp_path / "out/a.png"), class_boundaries(labels(), width=2))
    with pytest.raises(DataError, match="holds the code 255, which is to mean no label, besides 1"):
        write_boundary_labels([folder], tmp_path / "other", ignore=1)


@pytest.mark.parametrize(
    ("sources", "options", "expected"),
    [
        (["none"], {}, "none: no such file or folder"),
        (["empty"], {}, "no image in this folder"),
        (["masks"], {"width": 0}, "width: got 0"),
        (["masks"], {"rest": "some"}, "rest: got 'some', expected none, ignore or a number"),
        (["masks"], {"rest": "1"}, "rest: 1 is a class of these labels"),
        (["masks"], {"ignore": 300}, "ignore: got 300"),
        (["masks/a.png", "masks"], {"out": "masks"}, "would be replaced by what is made of it"),
        (["blank.png"], {}, "no pixel of 1 masks has a label"),
    ],
)
def test_bad_input_is_one_sentence(folder, tmp_path, monkeypatch, sources, options, expected):
    (tmp_path / "empty").mkdir()
    write_mask(tmp_path / "blank.png", np.full((4, 4), 255, np.uint8))
    monkeypatch.chdir(tmp_path)
    out = tmp_path / options.pop("out", "out")
    with pytest.raises(UsageError, match=expected):
        write_boundary_labels(sources, out, **options)


def test_what_is_there_is_kept_unless_it_may_be_replaced(folder, tmp_path):
    write_boundary_labels([folder], tmp_path / "out")
    with pytest.raises(UsageError, match="is there already; --overwrite replaces it"):
        write_boundary_labels([folder], tmp_path / "out")
    assert write_boundary_labels([folder], tmp_path / "out", overwrite=True).rest == 3
