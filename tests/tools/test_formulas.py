from __future__ import annotations

import re
from pathlib import Path

import pytest

from formulas import formulas, mathml, on_page_content

DOCS = Path(__file__).resolve().parents[2] / "docs"


def plain(text: str) -> str:
    """Return the words of a piece of MathML."""
    return re.sub(r"<[^>]+>", "", text)


def test_letters_numbers_and_signs_have_elements_of_their_own():
    assert mathml("a - 2.5", block=False) == (
        '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline">'
        "<mrow><mi>a</mi><mo>−</mo><mn>2.5</mn></mrow></math>"
    )


def test_fractions_roots_and_scripts_nest():
    text = mathml(r"\frac{x_i^2}{\sqrt{C}}", block=True)
    assert "<mfrac><mrow><msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup></mrow>" in text
    assert "<msqrt><mrow><mi>C</mi></mrow></msqrt>" in text


def test_a_sum_has_its_limits_below_and_above_where_it_stands_alone_and_beside_it_in_a_line():
    assert "<munderover><mo>∑</mo>" in mathml(r"\sum_{i=1}^{n} x_i", block=True)
    assert "<msubsup><mo>∑</mo>" in mathml(r"\sum_{i=1}^{n} x_i", block=False)


def test_words_stay_together_and_are_escaped():
    assert "<mtext>a &lt; b</mtext>" in mathml(r"\text{a < b}", block=False)
    assert '<mspace width="0.17em"></mspace>' in mathml(r"h \, w", block=False)
    assert "<mi>softmax</mi>" in mathml(r"\mathrm{softmax}(z)", block=False)


@pytest.mark.parametrize("wrong", [r"\whatever", r"\frac{1}{2", "a}", r"\left( a"])
def test_what_is_not_known_or_not_closed_is_an_error(wrong: str):
    with pytest.raises(ValueError, match="formula"):
        mathml(wrong, block=False)


def test_marked_formulas_of_a_page_are_replaced_and_nothing_else():
    page = '<p>Of <span class="arithmatex">\\(a &lt; b\\)</span>, <code>$x$</code></p>'
    made = on_page_content(page)
    assert plain(made) == "Of a&lt;b, $x$"
    assert '<div class="arithmatex">' not in on_page_content('<div class="arithmatex">\\[\nx\n\\]</div>')


def test_formulas_are_found_outside_of_code():
    page = "Of $a$ and `$b$`:\n\n$$c$$\n\n```text\n$d$\n```\n"
    assert list(formulas(page)) == [("a", False), ("c", True)]


def test_every_formula_of_the_documentation_can_be_set():
    found = [(tex, block) for page in sorted(DOCS.rglob("*.md")) for tex, block in formulas(page.read_text("utf-8"))]
    assert len(found) > 100
    for tex, block in found:
        assert mathml(tex, block=block)
