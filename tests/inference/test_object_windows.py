"""Objects and segments by windows: with a network that sees each window rightly, the image comes back as it is."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import pytest
import torch

from segatlas.config.objects import ObjectRule
from segatlas.inference.object_windows import WindowNotices, results_by_windows
from segatlas.inference.sliding import make_windows
from segatlas.structures import Instance, Panoptic, Result, Rle, Segment

RULE = ObjectRule(stuff_area=0)
THINGS = (False, True, True, False)


def scene(size: tuple[int, int], seed: int = 0, side: int = 15) -> np.ndarray:
    """Return (H, W) ids of discs, bars and rings, 0 elsewhere; about one of `side` squared pixels."""
    draw = np.random.default_rng(seed)
    ids = np.zeros(size, np.int32)
    y, x = np.mgrid[: size[0], : size[1]]
    number = 0
    for top in range(0, size[0] - 4, side):
        for left in range(0, size[1] - 4, side):
            number += 1
            cy, cx = top + draw.integers(3, side - 3), left + draw.integers(3, side - 3)
            part = (slice(max(cy - 40, 0), cy + 40), slice(max(cx - 40, 0), cx + 40))
            dy, dx = y[part] - cy, x[part] - cx
            kind = number % 3
            inside = (
                dy**2 + dx**2 < draw.integers(8, 50)
                if kind
                else (np.abs(dy + 0.6 * dx) < 2) & (np.abs(dx) < draw.integers(6, 36))
            )
            ids[part][inside & (ids[part] == 0)] = number
    for one in np.unique(ids)[1:]:  # what others cut in two is one object of its largest part
        _, labels, stats, _ = cv2.connectedComponentsWithStats((ids == one).astype(np.uint8), connectivity=4)
        largest = 1 + int(stats[1:, 4].argmax())
        ids[(labels > 0) & (labels != largest)] = 0
    return ids


class Pixels:
    """An image whose values are ids, of which windows can be had; counts the pixels of the largest."""

    def __init__(self, ids: np.ndarray):
        self.ids, self.size, self.largest = ids, ids.shape, 0

    def part(self, top: int, left: int, height: int, width: int) -> torch.Tensor:
        self.largest = max(self.largest, height * width)
        return torch.from_numpy(self.ids[top : top + height, left : left + width])


def class_of(number: int) -> int:
    return 1 + number % 2


def perfect(part: torch.Tensor, size: tuple[int, int], rule: ObjectRule) -> list[Result]:
    """Find every object of a window, as much of it as is there."""
    ids = part.numpy()
    assert ids.shape == size
    objects = [
        Instance(mask=ids == one, class_index=class_of(one), score=0.5 + 0.4 * (one % 7) / 7)
        for one in np.unique(ids).tolist()
        if one
    ]
    segments = [
        Segment(
            id=index + 1, class_index=one.class_index, is_thing=True, score=one.score, area=one.area, box=one.rle.box
        )
        for index, one in enumerate(objects)
    ]
    drawn = np.full(ids.shape, len(objects) + 1, np.int32)
    for index, one in enumerate(objects):
        drawn[one.mask] = index + 1
    segments.append(
        Segment(id=len(objects) + 1, class_index=3, is_thing=False, score=None, area=0, box=(0, 0, *ids.shape))
    )
    found = Panoptic(ids=drawn, segments=tuple(segments))
    return [Result(class_map=np.where(ids > 0, 1, 3).astype(np.uint8), objects=tuple(objects), segments=found)]


def scrappy(part: torch.Tensor, size: tuple[int, int], rule: ObjectRule) -> list[Result]:
    """Do the same, but miss scraps, take small ones for another class and blur masks near the window's sides."""
    (whole,) = perfect(part, size, rule)
    draw = np.random.default_rng(int(part.sum()))
    found = []
    for one in whole.instances:
        mask = one.bitmap()
        if one.area < 6 and draw.random() < 0.7:
            continue
        for side in (mask[:2], mask[-2:], mask[:, :2], mask[:, -2:]):
            side &= draw.random(side.shape) < 0.7
        kind = 3 - one.class_index if one.area < 15 and draw.random() < 0.5 else one.class_index
        if mask.any():
            found.append(Instance(mask=mask, class_index=kind, score=one.score))
    return [Result(objects=tuple(found))]


def run(ids: np.ndarray, segmented, window: int = 64, overlap: float = 1 / 3, most: int | None = None) -> Result:
    notices = WindowNotices()
    (result,) = results_by_windows(
        Pixels(ids),
        make_windows(window, overlap),
        segmented,
        ids.shape,
        rule=RULE,
        things=THINGS,
        most=most,
        notices=notices,
    )
    notices.tell()
    return result


def as_set(masks: list[Rle]) -> set[Rle]:
    assert len(set(masks)) == len(masks)
    return set(masks)


def straight_sides(masks: list[Rle], truth: np.ndarray, window: int, overlap: float) -> int:
    """Return how many masks end along a side of a window, by four pixels or more, where the true object goes on."""
    step = make_windows(window, overlap).stride[0]
    drawn = np.zeros(truth.shape, np.int32)
    for index, mask in enumerate(masks):
        top, left, bottom, right = mask.box
        drawn[top:bottom, left:right][mask.part()] = index + 1
    count = 0
    for found, ids in ((drawn, truth), (drawn.T, truth.T)):
        length = ids.shape[0]
        starts = [*range(0, length - window, step), length - window]
        for line in {line for start in starts for line in (start, start + window) if 0 < line < length}:
            ends = (found[line - 1] != found[line]) & (ids[line - 1] == ids[line]) & (ids[line] > 0)
            count += int((np.bincount(np.maximum(found[line - 1], found[line])[ends]) >= 4).sum())
    return count


@pytest.mark.parametrize("overlap", [0.25, 1 / 3, pytest.param(0.5, marks=pytest.mark.slow)])
def test_a_thousand_objects_come_back_each_once_and_as_they_are(overlap):
    ids = scene((480, 560))
    truth = [Rle.of(ids == one) for one in np.unique(ids)[1:]]
    assert len(truth) > 1000
    result = run(ids, perfect, 64, overlap)
    assert as_set([one.rle for one in result.instances]) == set(truth)
    assert straight_sides([one.rle for one in result.instances], ids, 64, overlap) == 0
    assert all(one.class_index == class_of(int(ids[one.mask][0])) for one in result.instances)
    drawn = result.panoptic
    assert as_set([Rle.of(drawn.ids == one.id) for one in drawn.segments if one.is_thing]) == set(truth)
    (stuff,) = [one for one in drawn.segments if not one.is_thing]
    assert stuff.area == int((ids == 0).sum())
    assert np.array_equal(result.semantic, np.where(ids > 0, 1, 3))


def test_of_scraps_and_ragged_ends_hardly_anything_is_left():
    ids = scene((480, 560), seed=1)
    truth = np.unique(ids)[1:]
    result = run(ids, scrappy, 64, 1 / 3)
    found = {}
    for one in result.instances:
        owner, counts = np.unique(ids[one.mask], return_counts=True)
        best = int(owner[counts.argmax()])
        ratio = counts.max() / (one.area + (ids == best).sum() - counts.max())
        found.setdefault(best, []).append(ratio)
    matched = sum(max(found.get(int(one), [0])) > 0.5 for one in truth)
    assert matched >= 0.99 * len(truth)
    assert len(result.instances) <= 1.01 * len(truth)
    assert straight_sides([one.rle for one in result.instances], ids, 64, 1 / 3) <= 3


def test_an_object_larger_than_many_windows_is_one():
    ids = np.zeros((300, 300), np.int32)
    y, x = np.mgrid[:300, :300]
    ids[(np.abs(np.hypot(y - 150, x - 150) - 120) < 9)] = 7
    result = run(ids, perfect)
    assert [one.rle for one in result.instances] == [Rle.of(ids == 7)]


def test_windows_are_no_larger_than_asked_for():
    ids = scene((200, 230))
    pixels = Pixels(ids)
    windows = make_windows(48)
    results_by_windows(
        pixels, windows, perfect, ids.shape, rule=RULE, things=THINGS, most=None, notices=WindowNotices()
    )
    assert pixels.largest == 48 * 48


def test_results_of_another_size_are_joined_there():
    ids = scene((200, 230))
    twice = ids.repeat(2, axis=0).repeat(2, axis=1)

    def doubled(part: torch.Tensor, size: tuple[int, int], rule: ObjectRule) -> list[Result]:
        return perfect(part.repeat_interleave(2, 0).repeat_interleave(2, 1), size, rule)

    (result,) = results_by_windows(
        Pixels(ids),
        make_windows(64),
        doubled,
        twice.shape,
        rule=RULE,
        things=THINGS,
        most=None,
        notices=WindowNotices(),
    )
    assert as_set([one.rle for one in result.instances]) == {Rle.of(twice == one) for one in np.unique(ids)[1:]}


def test_a_window_with_as_many_objects_as_the_network_gives_is_told():
    ids = scene((128, 128))
    with pytest.warns(UserWarning, match="windows hold 5 objects, as many as the network gives at most"):
        run(ids, perfect, most=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(ids, perfect, most=500)


def test_a_cut_piece_goes_where_a_window_sees_all_of_it_and_finds_nothing_and_this_is_told():
    ids = np.zeros((64, 96), np.int32)  # windows of columns 0 to 64 and 32 to 96
    ids[10:20, 58:70] = 1  # the second sees all of it
    ids[30:40, 20:70] = 2  # no window does
    ids[50:54, 5:12] = 3

    def first_alone(part: torch.Tensor, size: tuple[int, int], rule: ObjectRule) -> list[Result]:
        return perfect(part if 3 in part else torch.zeros_like(part), size, rule)

    told = "^1 pieces that sides of windows cut are left out, the best with a score of 0.56: another window sees all"
    with pytest.warns(UserWarning, match=told) as caught:
        result = run(ids, first_alone, 64, 0.5)
    assert len(caught) == 1
    cut = np.where(np.arange(96) < 64, ids, 0)
    kept = {Rle.of(cut == 2), Rle.of(ids == 3)}
    assert as_set([one.rle for one in result.instances]) == kept
    drawn = result.panoptic
    assert as_set([Rle.of(drawn.ids == one.id) for one in drawn.segments if one.is_thing]) == kept
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(ids * (ids != 1), first_alone, 64, 0.5)
        run(ids, perfect, 64, 0.5)


def test_bounds_on_number_hold_for_the_image():
    ids = scene((200, 200))
    rule, windows = ObjectRule(top=10), make_windows(64)
    (result,) = results_by_windows(
        Pixels(ids), windows, perfect, ids.shape, rule=rule, things=THINGS, most=None, notices=WindowNotices()
    )
    assert len(result.instances) == 10
