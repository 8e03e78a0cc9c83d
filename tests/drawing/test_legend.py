import numpy as np
import pytest

from segatlas.drawing import legend, overlay
from segatlas.drawing.legend import legend_entries, overlay_colors
from segatlas.drawing.maps import blend
from segatlas.drawing.text import PAPER, canvas
from segatlas.inference import Segmentation
from segatlas.structures import Panoptic, Segment

PALETTE = ((10, 20, 30), (200, 0, 0), (0, 200, 0))
CLASSES = ("ground", "house", "tree")


def test_legend_lists_the_classes_that_occur_largest_first_and_ignored_last():
    label = np.array([[1] * 6 + [0] * 2 + [255] * 2], np.uint8)
    entries = legend_entries(label, PALETTE, CLASSES)
    assert [(e.name, e.fraction) for e in entries] == [
        ("house", "60.0 %"),
        ("ground", "20.0 %"),
        ("ignore", "20.0 %"),
    ]
    assert entries[0].color == (200, 0, 0)


def test_a_class_of_one_pixel_is_not_called_zero_percent():
    label = np.zeros((100, 100), np.uint8)
    label[0, 0] = 2
    assert legend_entries(label, PALETTE, CLASSES)[1].fraction == "< 0.1 %"


def test_the_legend_of_segments_counts_their_pixels_and_things_and_calls_the_others_none(monkeypatch):
    ids = np.zeros((10, 10), np.int32)
    ids[:5], ids[5, :2], ids[6, :3] = 1, 7, 4
    parts = ((1, 0, False, 50), (7, 2, True, 2), (4, 2, True, 3))
    segments = [Segment(id=i, class_index=k, is_thing=t, score=None, area=a, box=(0, 0, 1, 1)) for i, k, t, a in parts]
    result = Segmentation(
        class_map=np.zeros((10, 10), np.uint8),  # the best class of stuff where there is no segment: not counted
        segments=Panoptic(ids=ids, segments=tuple(segments)),
        size=(10, 10),
        classes=CLASSES,
        palette=PALETTE,
        image=np.zeros((10, 10, 3), np.uint8),
    )
    shown = []
    monkeypatch.setattr(legend, "_strip", lambda entries, size, columns: shown.extend(entries) or canvas(1, 1)[0])
    result.overlay()
    assert [(e.name, e.fraction) for e in shown] == [("ground", "50.0 %"), ("tree (2)", "5.0 %"), ("none", "45.0 %")]


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (3000, 2), (64, 48), (300, 500), (500, 300)])
def test_overlay_keeps_the_image_at_the_top_left_in_its_own_size(size):
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (*size, 3)).astype(np.uint8)
    label = generator.integers(0, 3, size).astype(np.uint8)
    drawn = overlay(image, label, PALETTE, CLASSES)
    assert drawn.dtype == np.uint8
    assert drawn.size > image.size
    assert np.array_equal(drawn[: size[0], : size[1]], blend(image, label, PALETTE))


def test_legend_shows_the_colour_of_each_class_that_occurs():
    image = np.zeros((200, 400, 3), np.uint8)
    label = np.zeros((200, 400), np.uint8)
    label[:, 200:] = 1
    strip = overlay(image, label, PALETTE, CLASSES)[200:]
    for color, occurs in zip(PALETTE, (True, True, False), strict=True):
        assert (strip == color).all(axis=2).any() == occurs


def test_overlay_without_legend_has_the_size_of_the_image():
    image = np.zeros((20, 30, 3), np.uint8)
    assert overlay(image, np.zeros((20, 30), np.uint8), PALETTE, CLASSES, legend=False).shape == (20, 30, 3)


def test_legend_of_150_classes_with_long_names_is_drawn():
    label = np.arange(150, dtype=np.uint8).reshape(10, 15).repeat(20, 0).repeat(20, 1)
    palette = [(i, 255 - i, 128) for i in range(150)]
    names = [f"a class with a rather long name, number {i}" for i in range(150)]
    image = overlay(np.zeros((200, 300, 3), np.uint8), label, palette, names)
    assert image.shape[0] > 200


def test_the_legend_of_an_overlay_has_an_empty_box_for_a_black_class_and_black_where_colours_stand_alone():
    image, label = np.full((200, 400, 3), 90, np.uint8), np.zeros((200, 400), np.uint8)
    assert overlay_colors(((0, 0, 0), (1, 1, 1))) == [PAPER, (1, 1, 1)]
    drawn = overlay(image, label, ((0, 0, 0),), ("ground",))
    assert (drawn[:200, :400] == image).all()
    assert not (drawn[200:] == 0).all(axis=2).any()
