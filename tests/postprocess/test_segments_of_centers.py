"""Segments from classes, centres and offsets: against a slow obvious form, and on cases made by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from segatlas.config.objects import ObjectRule
from segatlas.errors import DataError, TaskError
from segatlas.postprocess.centers_offsets import instance, panoptic
from segatlas.postprocess.segments_of_centers import grouped, peaks
from segatlas.structures import CentersAndOffsets, Resample

THINGS = (False, True, True, False)
RULE = ObjectRule(stuff_area=30)


def slow_peaks(heat: np.ndarray, rule: ObjectRule) -> list[tuple[int, int]]:
    """Return the centres in reading order: window by window."""
    reach, found = rule.center_window // 2, []
    for y, x in np.argwhere(heat > rule.center_score).tolist():
        window = heat[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1]
        if heat[y, x] == window.max():
            found.append((y, x))
    if len(found) >= rule.center_top:
        least = sorted((heat[place] for place in found), reverse=True)[rule.center_top - 1]
        found = [place for place in found if heat[place] > least]
    return found


def slow_groups(labels: np.ndarray, heat: np.ndarray, offsets: np.ndarray, rule: ObjectRule) -> dict[int, list]:
    """Return centre -> pixels and class, one pixel after another."""
    centers, members = slow_peaks(heat, rule), {}
    if centers:
        for y, x in np.argwhere(np.array(THINGS)[labels]).tolist():
            place = np.float32([y, x]) + offsets[:, y, x]
            distances = [(place[0] - np.float32(a)) ** 2 + (place[1] - np.float32(b)) ** 2 for a, b in centers]
            members.setdefault(int(np.argmin(distances)), []).append((y, x))
    kinds = {
        center: min(Counter(int(labels[place]) for place in pixels).items(), key=lambda pair: (-pair[1], pair[0]))[0]
        for center, pixels in members.items()
    }
    return {center: [kinds[center], sorted(pixels)] for center, pixels in members.items()}


def scene(seed: int, sharp: float = 1.0, size: tuple[int, int] = (40, 56)) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, size, generator=draw).to(torch.uint8)
    heat = torch.rand(size, generator=draw) ** sharp
    return labels, heat, 12 * torch.randn(2, *size, generator=draw)


@pytest.mark.parametrize("sharp", [1.0, 40.0])
@pytest.mark.parametrize("rule", [RULE, ObjectRule(center_top=5), ObjectRule(center_window=3, center_score=0.4)])
def test_centres_are_those_of_the_slow_form(sharp, rule):
    heat = scene(3, sharp)[1]
    assert [tuple(place) for place in peaks(heat, rule).tolist()] == slow_peaks(heat.numpy(), rule)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pixels_are_grouped_as_by_the_slow_form(seed):
    labels, heat, offsets = scene(seed, 20.0)
    groups = grouped(labels, heat, offsets, RULE, THINGS)
    expected = slow_groups(labels.numpy(), heat.numpy(), offsets.numpy(), RULE)
    found = [
        [int(groups.classes[row]), [tuple(place) for place in (groups.ids == row + 1).nonzero().tolist()]]
        for row in range(len(groups.areas))
    ]
    assert found == [expected[center] for center in sorted(expected)]
    assert [len(pixels) for _, pixels in found] == groups.areas.tolist()


def output(size: tuple[int, int] = (32, 48)) -> CentersAndOffsets:
    """Return two things side by side on stuff, at stride 1: class 1 with a stain of class 2, and class 2."""
    semantic = torch.zeros(1, 4, *size)
    semantic[:, 0] = 1.0
    semantic[:, 3, 28:] = 5.0
    offsets, heat = torch.zeros(1, 2, *size), torch.zeros(1, 1, *size)
    y, x = torch.arange(size[0])[:, None], torch.arange(size[1])
    for kind, left, middle in ((1, 8, (14, 13)), (2, 20, (14, 25))):
        part = (slice(8, 20), slice(left, left + 12))
        semantic[0, kind, *part] = 5.0
        offsets[0, 0, *part] = (middle[0] - y).expand(size)[part].float()
        offsets[0, 1, *part] = (middle[1] - x).expand(size)[part].float()
        away = (y - middle[0] + 0.3) ** 2 + (x - middle[1] + 0.2) ** 2
        heat[0, 0] = torch.maximum(heat[0, 0], (0.5 + 0.1 * kind) * torch.exp(-away / 20))
    semantic[0, 2, 9:11, 9:11] = 9.0
    return CentersAndOffsets(heat, offsets, None, canvas=size, semantic=semantic)


def test_a_thing_has_the_class_of_most_of_its_pixels_and_stuff_fills_what_is_left():
    (result,) = panoptic(output(), (32, 48), crop=(32, 48), rule=RULE, things=THINGS)
    kinds = [(one.class_index, one.is_thing, one.area) for one in result.panoptic.segments]
    assert kinds == [(2, True, 144), (1, True, 144), (0, False, 32 * 48 - 288 - 4 * 48), (3, False, 4 * 48)]
    assert [one.box for one in result.panoptic.segments[:2]] == [(8, 20, 20, 32), (8, 8, 20, 20)]
    assert [one.id for one in result.panoptic.segments] == [1, 2, 3, 4]
    assert all((result.panoptic.ids == one.id).sum() == one.area for one in result.panoptic.segments)
    assert [one.area for one in result.instances] == [144, 144]
    assert result.semantic[9, 9] == 2  # a pixel's own class
    assert all(0.5 < one.score < 0.72 for one in result.instances)
    (alone,) = instance(output(), (32, 48), crop=(32, 48), rule=RULE, things=THINGS)
    assert alone.instances == result.instances


def test_without_a_centre_there_are_no_things_and_their_pixels_belong_to_nothing():
    given = output()
    given = given._replace(centers=torch.zeros_like(given.centers))
    (result,) = panoptic(given, (32, 48), crop=(32, 48), rule=RULE, things=THINGS)
    assert [one.class_index for one in result.panoptic.segments] == [0, 3]
    assert (result.panoptic.ids[8:20, 8:32] == 0).all()


def test_little_stuff_goes():
    (result,) = panoptic(output(), (32, 48), crop=(32, 48), rule=ObjectRule(stuff_area=200), things=THINGS)
    assert [one.class_index for one in result.panoptic.segments] == [2, 1, 0]
    assert (result.panoptic.ids[28:] == 0).all()


def test_offsets_are_resized_with_the_image():
    (result,) = panoptic(output(), (64, 96), crop=(32, 48), rule=RULE, things=THINGS)
    things = [one for one in result.panoptic.segments if one.is_thing]
    assert [one.class_index for one in things] == [2, 1]
    assert all(one.area == pytest.approx(4 * 144, rel=0.25) for one in things)


def test_corners_that_are_aligned_are_kept_so():
    given = output()._replace(resample=Resample(align_corners=True), canvas=(63, 95))
    (result,) = panoptic(given, (63, 95), crop=(63, 95), rule=RULE, things=THINGS)
    assert result.semantic.shape == (63, 95)


def test_unknown_things_and_maps_that_are_no_numbers_are_refused():
    with pytest.raises(TaskError, match="4 classes, but 2 flags"):
        panoptic(output(), (32, 48), crop=(32, 48), things=(True, False))
    given = output()
    given.offsets[0, 0, 0, 0] = torch.nan
    with pytest.raises(DataError, match="no numbers"):
        panoptic(given, (32, 48), crop=(32, 48), things=THINGS)
