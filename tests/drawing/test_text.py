import numpy as np
import pytest
from PIL import Image, ImageDraw

from segatlas.drawing.text import font, shortened, text_width


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
