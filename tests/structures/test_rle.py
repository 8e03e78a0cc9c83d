"""Masks as runs: the same pixels, areas, boxes, texts and overlaps as pycocotools gives, and what is refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from segatlas.errors import DataError
from segatlas.structures import Rle
from segatlas.structures import rle as module
from segatlas.structures.rle import MaskRuns, ious


def masks(count, size, seed=0):
    """Return masks with holes and parts, one of single pixels, one empty, one full."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        coarse = rng.random((size[0] // 4 + 1, size[1] // 4 + 1)) < rng.random()
        made.append(np.kron(coarse, np.ones((4, 4), bool))[: size[0], : size[1]] & (rng.random(size) < 0.95))
        if index == 0:
            made[-1] = rng.random(size) < 0.5
        if index == 1:
            made[-1] = np.zeros(size, bool)
        if index == 2:
            made[-1] = np.ones(size, bool)
    return made


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (21, 34)])
def test_runs_give_back_the_bitmap_its_area_and_its_box(size):
    for mask in masks(12, size):
        code = Rle.of(mask)
        assert np.array_equal(code.bitmap(), mask)
        assert code.bitmap().dtype == bool
        assert code.area == mask.sum()
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        expected = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) if rows.size else (0, 0, 0, 0)
        assert code.box == expected
        assert Rle.read(code.record()) == code
        assert Rle.read(code.compressed()) == code
        assert Rle.of(np.asfortranarray(mask.astype(np.uint8) * 3)) == code
        assert pickle.loads(pickle.dumps(code)) == code
        top, left, bottom, right = code.box
        assert np.array_equal(code.part(), mask[top:bottom, left:right])
        assert hash(Rle.of(mask)) == hash(code)


@pytest.mark.parametrize("corner", [(0, 0), (3, 5), (0, 7), (6, 0)])
@pytest.mark.parametrize("part", [(21, 9), (15, 9), (15, 27), (0, 0)])
def test_a_part_in_its_place_is_the_whole_mask(corner, part):
    top, left = corner[0] if part[0] < 21 else 0, corner[1]
    for inside in masks(6, part, 5) if part[0] else [np.zeros(part, bool)]:
        whole = np.zeros((21, 34), bool)
        whole[top : top + part[0], left : left + part[1]] = inside
        code = Rle.placed(inside, (21, 34), top, left)
        assert np.array_equal(code.bitmap(), whole)
        assert code == Rle.read(code.record())


def test_texts_areas_boxes_and_overlaps_are_those_of_pycocotools():
    coco = pytest.importorskip("pycocotools.mask")
    size = (61, 85)
    first, second = masks(14, size, 1), masks(9, size, 2)
    codes, others = ([Rle.of(mask) for mask in group] for group in (first, second))
    theirs, their_others = (
        [coco.encode(np.asfortranarray(mask, np.uint8)) for mask in group] for group in (first, second)
    )
    for code, encoded in zip(codes, theirs, strict=True):
        assert code.compressed()["counts"].encode() == encoded["counts"]
        assert Rle.read(encoded) == code
        assert code.area == coco.area(encoded)
    crowd = [index % 3 == 0 for index in range(len(others))]
    expected = np.array(coco.iou(theirs, their_others, crowd))
    assert np.array_equal(ious(codes, others, crowd), expected)


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_common_pixels_are_the_same_however_many_are_looked_up_at_once(piece, monkeypatch):
    monkeypatch.setattr(module, "PIECE", piece)
    first = [*masks(8, (24, 31), 3), *masks(4, (7, 5), 6)]  # of two sizes
    second = [*masks(5, (24, 31), 4), *masks(6, (7, 5), 5)]
    pairs = [(row, column) for row, one in enumerate(first) for column, other in enumerate(second)
             if one.shape == other.shape]  # fmt: skip
    rows, columns = np.array(pairs).T
    own, others = (MaskRuns([Rle.of(mask) for mask in group]) for group in (first, second))
    found = own.common(rows, others, columns)
    assert found.tolist() == [(first[row] & second[column]).sum() for row, column in pairs]
    assert own.areas.tolist() == [mask.sum() for mask in first]


def test_no_masks_on_one_side_have_no_overlaps():
    one = [Rle.of(np.ones((3, 4), bool))]
    assert ious([], one).shape == (0, 1)
    assert ious(one, []).shape == (1, 0)
    assert ious([], []).shape == (0, 0)


def test_empty_runs_inside_a_code_change_nothing():
    code = Rle.of(np.array([[0, 1, 1, 0, 1]], bool))
    assert Rle.read({"size": [1, 5], "counts": [1, 1, 0, 1, 1, 1]}) == code
    assert Rle.read({"size": [1, 5], "counts": [1, 2, 1, 0, 0, 1, 0, 0]}) == code
    assert Rle.read({"size": [2, 2], "counts": [0, 0, 4]}).area == 0


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"size": [2, 3], "counts": [1, 2]}, "of 3 pixels for a size of 2 x 3"),
        ({"size": [2, 3], "counts": [7, -1]}, "a run of -1"),
        ({"size": [2, 3], "counts": [1.5, 4.5]}, "no list of whole numbers"),
        ({"size": [2, 3], "counts": [[1], [5]]}, "no list of whole numbers"),
        ({"size": [2, 3], "counts": "\x1f"}, "no text that COCO writes"),
        ({"size": [2, 3], "counts": "P"}, "no text that COCO writes"),
        ({"size": [2, 3], "counts": "PPPPPPPPPP0"}, "no image has"),
        ({"size": [2, 3], "counts": "é"}, "no text that COCO writes"),
        ({"size": [2, 3], "counts": ""}, "of 0 pixels"),
        ({"size": [0, 3], "counts": []}, "0 x 3"),
        ({"size": [10**9, 10**9], "counts": [10**18]}, "expected 1 to"),
        ({"size": [2], "counts": [2]}, "expected size"),
        ({"counts": [2]}, "expected size"),
        ({"size": [float("nan"), 3], "counts": [2]}, "expected size"),
        ([], "expected size"),
    ],
)
def test_what_is_no_run_length_code_is_refused(record, told):
    with pytest.raises(DataError, match=told):
        Rle.read(record)


def test_masks_of_two_sizes_have_no_overlap():
    with pytest.raises(DataError, match="masks of 3 x 4 and 4 x 3 pixels"):
        ious([Rle.of(np.ones((3, 4), bool))], [Rle.of(np.ones((4, 3), bool))])


def test_a_mask_of_three_dimensions_is_refused():
    with pytest.raises(DataError, match="expected"):
        Rle.of(np.zeros((2, 3, 4), bool))
