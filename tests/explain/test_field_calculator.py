from __future__ import annotations

from fractions import Fraction

import pytest

from segatlas.errors import UsageError
from segatlas.explain.field_calculator import chain_fields, parse_layer


def test_sizes_jumps_and_starts_follow_the_textbook():
    stem = chain_fields([(7, 2, 3), (3, 2, 1), (3, 1, 1)])
    assert [one.size[0] for one in stem] == [7, 11, 19]
    assert [one.jump[0] for one in stem] == [2, 4, 4]
    assert [one.start[0] for one in stem] == [Fraction(1, 2)] * 3
    (unpadded,) = chain_fields([(3,)])
    assert unpadded.start == (Fraction(3, 2), Fraction(3, 2))  # the middle of the first window of 3 pixels


def test_dilation_widens_by_its_steps_and_rectangles_by_axis():
    (dilated,) = chain_fields([(3, 1, 2, 2)])
    assert dilated.size == (5, 5)
    strip = chain_fields([(3, 2, 1), ((1, 5), (1, 2), (0, 2))])[-1]
    assert strip.size == (3, 11)
    assert strip.jump == (2, 4)


def test_words_become_layers():
    assert parse_layer("3,2,1") == (3, 2, 1)
    assert parse_layer("1x5, 1x2,0x2") == ((1, 5), (1, 2), (0, 2))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([(0,)], "layer 1: kernel is 0, expected at least 1"),
        ([(3,), (3, 0)], "layer 2: stride is 0"),
        ([(3, 1, -1)], "padding is -1"),
        ([(3, 1, 1, 0)], "dilation is 0"),
        ([(3, 1, 1, 1, 1)], "got 5 numbers"),
        ([], "at least one layer"),
    ],
)
def test_numbers_that_make_no_layer_are_refused(layers, expected):
    with pytest.raises(UsageError, match=expected):
        chain_fields(layers)


@pytest.mark.parametrize("word", ["", "3,", "a", "3x3x3", "-1", "3;2"])
def test_words_that_are_no_layer_are_refused(word):
    with pytest.raises(UsageError, match="expected KERNEL"):
        parse_layer(word)
