"""Words that have another one here are found, and the places where they are right are left alone."""

from __future__ import annotations

import pytest

from house_rules import ROOT
from house_words import EXCEPTIONS, repeated_classes, word_breaches


@pytest.mark.parametrize(
    ("line", "today"),
    [
        ("def area_of(picture): ...", "image"),
        ("def test_grey_pictures_are_read(): assert area_of(1)", "image"),
        ("x = 1  # logits raised to the canvas", "upsample"),
        ("x = 1  # Raise the coarse maps", "upsample"),
        ("def raise_logits(logits): ...", "upsample"),
        ("below_raise = 3", "upsample"),
        ("raised: int = 3", "upsampled"),
        ("x = 1  # the share of pixels", "fraction, ratio or probability"),
        ("val_share = 0.2", "fraction, ratio or probability"),
        ("for band in rows: ...", "chunk, rows or channels"),
        ("VOID = 255", "ignore"),
        ("x = 1  # unlabelled pixels", "ignored"),
        ("x = 1  # a verb of the command line", "command"),
        ("config_beside = 2", "sidecar"),
        ("x = 1  # the data doctor", "data check"),
        ("x = encoder.multiple", "size_divisibility"),
        ("class LossTerm: ...", "LossConfig"),
        ("class Tally: ...", "PredictionSummary"),
    ],
)
def test_a_word_that_has_another_one_here_is_found_with_its_line(line, today):
    found = list(word_breaches("src/segatlas/layers/example.py", f'"""Example."""\n{line}\n'))
    assert {number for number, _ in found} == {2}
    assert any(today in rule for _, rule in found)


@pytest.mark.parametrize(
    "line",
    [
        "def fail(): raise DataError('maps of two sizes')",
        'x = "Raises DataError naming the map"',
        "x = 1  # avoid what two processes share; parts that several heads share",
        "x = 1  # what lies beside it",
        "channels = len(image.getbands())",
        "signal.raise_signal(2)",
        "def test_an_error_is_raised_with_the_file_beside_it(): assert fail()",
        "class SearchParts: ...",
    ],
)
def test_the_same_letters_with_another_meaning_are_left_alone(line):
    assert list(word_breaches("src/segatlas/layers/example.py", f'"""Example."""\n{line}\n')) == []


def test_documents_of_both_languages_are_looked_at_and_data_files_are_not():
    assert list(word_breaches("docs/own-data.md", "A picture.\n")) == [(1, "'picture': the word here is image")]
    assert list(word_breaches("README.zh.md", "一张图片\n")) == [(1, "'图片': the word here is 图像")]
    assert list(word_breaches("docs/performance.json", "A picture.\n")) == []


def test_side_by_side_is_for_what_people_look_at_and_not_for_channels():
    assert list(word_breaches("src/segatlas/models/example.py", "x = 1  # maps side by side\n"))
    assert not list(word_breaches("src/segatlas/evaluation/tables.py", "x = 1  # models side by side\n"))


def test_an_exception_holds_for_its_words_only():
    camvid = "src/segatlas/data/datasets/camvid.py"
    assert not list(word_breaches(camvid, 'NAME = "Void"\n'))
    assert list(word_breaches(camvid, 'NAME = "picture"\n'))
    assert not list(word_breaches("src/segatlas/renamed.py", 'OLD = "save_picture"\n'))


def test_every_exception_is_for_something_that_is_there_and_says_why():
    missing = [start for start, _, _ in EXCEPTIONS if not (ROOT / start).exists()]
    assert missing == []
    assert all(reason for _, _, reason in EXCEPTIONS)


def test_a_class_name_has_one_meaning():
    first, second = (
        ("src/segatlas/data/a.py", "class Source: ...\n"),
        ("src/segatlas/weights/b.py", "\nclass Source: ...\n"),
    )
    found = [(name, line) for name, line, _ in repeated_classes([first, second])]
    assert found == [("src/segatlas/data/a.py", 1), ("src/segatlas/weights/b.py", 2)]
    siblings = [(f"src/segatlas/models/{name}.py", "class Head: ...\n") for name in ("fcn", "pspnet")]
    assert not list(repeated_classes(siblings))
    assert list(repeated_classes([*siblings, ("src/segatlas/layers/head.py", "class Head: ...\n")]))
    extended = ("src/segatlas/recipe.py", "from a import b\nclass Source(b.Source): ...\n")
    assert not list(repeated_classes([first, extended]))
    assert not list(repeated_classes([first, ("tests/fakes.py", "class Source: ...\n")]))
