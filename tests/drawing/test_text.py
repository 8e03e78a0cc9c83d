import logging

import numpy as np
import pytest
from PIL import Image, ImageDraw

from segatlas import drawing
from segatlas.drawing import text as room
from segatlas.drawing.text import font, font_file, one_line, shortened, tell_missing, text_width

CACHES = (room._best_font, room._has, room._fonts)


@pytest.fixture
def fonts(tmp_path, monkeypatch):
    """The folder of the only fonts of this machine besides DejaVu Sans; empty at first."""
    monkeypatch.setattr(room, "_font_folders", lambda: [tmp_path])
    monkeypatch.setattr(room, "_told", set())
    for cache in CACHES:
        cache.cache_clear()
    yield tmp_path
    for cache in CACHES:
        cache.cache_clear()


def write_font(path, letters):
    """Write a font in which each letter is a bar, wider from one letter to the next, and a missing one a square."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    def bar(width):
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((width, 0), (width, 800), (0, 800)):
            pen.lineTo(corner)
        pen.closePath()
        return pen.glyph()

    names = [".notdef", *(f"u{ord(letter):05x}" for letter in letters)]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names[1:], strict=True)})
    builder.setupGlyf({name: bar(700 - 60 * place) for place, name in enumerate(names)})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (800, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


def drawn(text, size=20):
    paper = Image.new("L", (200, 40))
    ImageDraw.Draw(paper).text((2, 2), text, fill=255, font=font(size, text))
    return np.asarray(paper)


@pytest.mark.parametrize("text", ["é", "ß", "ж", "α"])
def test_european_letters_are_not_drawn_as_the_box_of_a_missing_letter(text):
    letter, box = font(20, text).getmask(text), font(20, text).getmask("\ufffe")
    assert letter.getbbox() is not None
    assert (letter.size, list(letter)) != (box.size, list(box))


def test_text_that_is_too_wide_is_cut_and_fits():
    text = "a very long class name that goes on"
    cut = shortened(text, 14, 100)
    assert cut.endswith("...")
    assert text.startswith(cut[:-3])
    assert text_width(cut, 14) <= 100
    assert shortened("road", 14, 100) == "road"


def test_names_in_scripts_without_a_font_are_still_drawn():
    assert drawn("道路").any()


def test_a_text_takes_the_font_of_the_system_that_has_all_its_characters(fonts):
    half = write_font(fonts / "A.ttf", "道")
    whole = write_font(fonts / "B.ttf", "道路 road")
    write_font(fonts / "Damaged.ttf", "a").write_bytes(b"no font")
    assert font_file("道") == half
    assert font_file("道路 road") == whole
    assert font_file("road") is None
    assert font_file("дорога").name == "DejaVuSans.ttf"


def test_names_of_other_scripts_are_drawn_in_overlays_sheets_and_plots(fonts):
    names, palette = ["道路", "road"], [(200, 0, 0), (0, 0, 200)]
    label, image = np.arange(4096).reshape(64, 64) % 2, np.zeros((64, 64, 3), np.uint8)

    def draw():
        return (
            drawing.overlay(image, label, palette, names).tobytes(),
            drawing.sheet([(image,)], ["道路"], ["路"]).tobytes(),
            drawing.confusion_image(np.eye(2), names),
            drawing.bars_image(names, [0.2, 0.4], palette),
        )

    boxes = draw()
    write_font(fonts / "A.ttf", "道路")
    for cache in CACHES:
        cache.cache_clear()
    letters = draw()
    assert [one == other for one, other in zip(boxes, letters, strict=True)] == [False] * 4


def test_characters_that_no_font_has_are_said_once_with_what_to_install(fonts, caplog):
    names = ["道路", "建物", "ถนน", "дорога", "café"]
    label = np.arange(100).reshape(10, 10) % 5
    with caplog.at_level(logging.WARNING, "segatlas"):
        for _ in range(2):
            drawing.overlay(np.zeros((10, 10, 3), np.uint8), label, [(0, 0, 0)] * 5, names)
            drawing.confusion_image(np.eye(5), names)
    (message,) = caplog.messages
    assert all(letter in message for letter in "道路建物ถน")
    assert "fonts-noto-cjk" in message
    assert "é" not in message


def test_emoji_that_a_font_has_in_one_size_only_are_said_to_be_missing(fonts, caplog, monkeypatch):
    write_font(fonts / "NotoColorEmoji.ttf", "\N{CRAB}")
    load = room._load

    def of_one_size(file, size):
        if file.stem == "NotoColorEmoji" and size != 109:
            raise OSError("invalid pixel size")
        return load(file, size)

    monkeypatch.setattr(room, "_load", of_one_size)
    tell_missing(["\N{CRAB}"])
    assert "\N{CRAB}" in caplog.text


def test_what_is_no_character_to_print_stands_as_one_box_and_breaks_nothing():
    assert one_line("a\nb\udce9\x1b[31m") == "a\N{REPLACEMENT CHARACTER}b" + 2 * "\N{REPLACEMENT CHARACTER}" + "[31m"
    name, image = "a\nb\udce9 $x_$", np.zeros((8, 8, 3), np.uint8)
    label = np.zeros((8, 8), np.uint8)
    assert drawing.overlay(image, label, [(9, 9, 9)], [name]).shape[2] == 3
    assert drawing.sheet([(image,)], [name], [name]).any()
    assert drawing.confusion_image(np.ones((1, 1)), [name])
    assert drawing.bars_image([name], [0.5])


def test_a_name_of_a_million_letters_is_cut():
    cut = shortened("wörd " * 200_000, 14, 100)
    assert cut.endswith("...")
    assert text_width(cut, 14) <= 100
    assert drawing.bars_image(["x" * 10_000], [0.5])
