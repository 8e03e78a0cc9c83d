from __future__ import annotations

import pytest

from segatlas.errors import UsageError
from segatlas.palette import default_palette


def test_255_colours_are_distinct_and_in_range():
    colors = default_palette(255)
    assert len(set(colors)) == 255
    assert all(0 <= value <= 255 for color in colors for value in color)


def test_a_shorter_palette_is_the_beginning_of_a_longer_one():
    assert default_palette(40)[:7] == default_palette(7)
    assert default_palette(0) == ()


def test_the_first_twenty_differ_clearly():
    colors = default_palette(20)
    for i, a in enumerate(colors):
        for b in colors[:i]:
            assert sum(abs(x - y) for x, y in zip(a, b, strict=True)) >= 60, (a, b)


def test_black_and_white_are_not_used():
    assert not {(0, 0, 0), (255, 255, 255)} & set(default_palette(255))


def test_too_many_classes_are_a_clear_error():
    with pytest.raises(UsageError, match="no default palette for 5000 classes"):
        default_palette(5000)
