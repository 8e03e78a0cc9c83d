"""Pages in docs/learn and docs/notebooks: blocks run, print, draw what pages show; languages and notebooks agree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import learn_pages
import numpy as np
import pytest
import torch
from docs_blocks import ROOT, find_blocks
from learn_pages import (
    CHINESE,
    COURSE,
    FIGURE,
    NOTEBOOKS,
    PAGES,
    SLOW,
    Ran,
    blocks_of,
    figure_of,
    notebook,
    parts_of,
    run_page,
    with_printed,
)
from PIL import Image

from formulas import formulas, mathml

LARGEST_FIGURE = 80_000
"""Bytes."""
CHANGED = 48
"""A pixel differs where a colour does by more than this of 255: writing in 256 colours moves them by less."""
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trains(page: Path) -> bool:
    """Tell whether a page trains a network: rounding then grows, and other machines give slightly other numbers."""
    text = page.read_text(encoding="utf-8")
    return "optimiser.step()" in text or "sa.train(" in text


def assert_same_lines(printed: str, shown: str, *, rough: bool) -> None:
    if not rough:
        assert printed == shown
        return
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", shown)
    found, expected = ([float(number) for number in NUMBER.findall(text)] for text in (printed, shown))
    np.testing.assert_allclose(found, expected, rtol=0.1, atol=0.1)


def assert_same_figure(drawn: np.ndarray, file: Path, *, rough: bool) -> None:
    stored = np.asarray(Image.open(file).convert("RGB")).astype(int)
    assert stored.shape == drawn.shape
    fraction = (np.abs(stored - drawn).max(axis=2) > CHANGED).mean()
    assert fraction < (0.1 if rough else 0.005), f"{file.name}: {100 * fraction:.2f} % of the pixels have changed"


def check(page: Path, ran: list[Ran]) -> None:
    """Compare what blocks printed and drew with what the page shows."""
    shown = dict(blocks_of(page))
    for one in ran:
        assert_same_lines(one.printed, shown[one.code], rough=trains(page))
        if one.drawn is not None:
            assert_same_figure(one.drawn, figure_of(page, slow=one.is_slow), rough=trains(page))
    assert any(one.drawn is not None for one in ran)


def has_slow_blocks(page: Path) -> bool:
    return any(code.startswith(SLOW) for code, _ in blocks_of(page))


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: page.stem)
def test_the_blocks_of_a_page_print_and_draw_what_it_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    check(page, list(run_page(page, slow=False)))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", filter(has_slow_blocks, [*PAGES, *NOTEBOOKS]), ids=lambda page: page.stem)
def test_the_slow_blocks_of_a_page_print_what_it_shows(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    check(page, list(run_page(page, slow=True)))


def test_there_are_twenty_pages_and_the_index_names_all():
    assert len(PAGES) == 20
    for folder, pages in ((COURSE, PAGES), (COURSE / "zh", CHINESE)):
        index = (folder / "index.md").read_text(encoding="utf-8")
        assert re.findall(r"\]\((\d\d-[a-z-]+\.md)\)", index) == [page.name for page in pages]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_chinese_page_has_the_same_blocks_formulas_figure_and_papers(page: Path):
    other = COURSE / "zh" / page.name
    assert blocks_of(other) == blocks_of(page)
    english, chinese = (file.read_text(encoding="utf-8") for file in (page, other))
    assert sorted(formulas(chinese)) == sorted(formulas(english))
    assert [file for _, file in FIGURE.findall(chinese)] == ["../" + file for _, file in FIGURE.findall(english)]
    papers = r"\]\((https://arxiv\.org/abs/[^)]+)\)"
    assert sorted(re.findall(papers, chinese)) == sorted(re.findall(papers, english))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_a_formula_that_stands_alone_and_every_formula_can_be_drawn(page: Path):
    found = list(formulas(page.read_text(encoding="utf-8")))
    assert any(block for _, block in found)
    for tex, block in found:
        assert mathml(tex, block=block).startswith("<math")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_one_figure_which_is_small(page: Path):
    figures = FIGURE.findall(page.read_text(encoding="utf-8"))
    assert [COURSE / file for _, file in figures] == [figure_of(page)]
    assert figure_of(page).stat().st_size < LARGEST_FIGURE


def test_no_figure_or_notebook_is_left_over():
    assert sorted((COURSE / "figures").iterdir()) == [figure_of(page) for page in PAGES]
    books = sorted(COURSE.rglob("*.ipynb"))
    assert books == sorted(page.with_suffix(".ipynb") for page in (*PAGES, *CHINESE))


def test_of_the_two_notebooks_each_has_its_page_and_the_figures_that_it_shows():
    folder = ROOT / "docs" / "notebooks"
    assert [page.stem for page in NOTEBOOKS] == ["own-data", "published-weights"]
    assert sorted(folder.glob("*.ipynb")) == [page.with_suffix(".ipynb") for page in NOTEBOOKS]
    drawn = [figure_of(page, slow=slow) for page in NOTEBOOKS for slow in (False, True)[: 1 + has_slow_blocks(page)]]
    shown = [folder / file for page in NOTEBOOKS for _, file in FIGURE.findall(page.read_text(encoding="utf-8"))]
    assert shown == drawn
    assert sorted((folder / "figures").iterdir()) == sorted(drawn)
    assert all(file.stat().st_size < LARGEST_FIGURE for file in drawn)


@pytest.mark.parametrize("page", [*PAGES, *CHINESE, *NOTEBOOKS], ids=lambda page: str(page.relative_to(ROOT / "docs")))
def test_the_notebook_is_the_page(page: Path):
    text = page.with_suffix(".ipynb").read_text(encoding="utf-8")
    assert text == notebook(page)
    cells = json.loads(text)["cells"]
    code = ["".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code"]
    assert code == [block for block, _ in blocks_of(page)]
    assert f"]({page.stem}.ipynb)" in page.read_text(encoding="utf-8")


def test_the_parts_of_a_page_are_all_of_its_blocks():
    for page in (*PAGES, *NOTEBOOKS):
        kinds = [part.kind for part in parts_of(page) if part.kind != "prose"]
        assert kinds == [block.language for block in find_blocks(page)]
        assert set(kinds) <= {"python", "text"}


def test_a_block_that_fails_names_its_page(tmp_path: Path):
    page = tmp_path / "01-broken.md"
    page.write_text("# Broken\n\n```python\n1 / 0\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="01-broken"):
        list(run_page(page, slow=True))


def test_lines_are_written_behind_the_block_that_prints_them_in_place_of_old_ones(tmp_path: Path):
    page = tmp_path / "01-page.md"
    old = "```python\nprint(1)\n```\n\n```text\n7\n```\n\nText.\n\n```python\nx = 1\n```\n\nEnd.\n"
    page.write_text(old, encoding="utf-8")
    written = with_printed(page, list(run_page(page, slow=True)))
    assert written == old.replace("\n7\n", "\n1\n")


def test_a_line_with_a_command_runs_it_and_prints_what_it_prints(tmp_path: Path):
    page = tmp_path / "01-page.md"
    page.write_text("```python\nx = 1\n!segatlas models list 'unet'\nprint(x)\n```\n", encoding="utf-8")
    (one,) = run_page(page, slow=False)
    assert "U-Net" in one.printed
    assert one.printed.endswith("\n1\n")


def test_slow_blocks_are_left_out_unless_asked_for(tmp_path: Path):
    page = tmp_path / "01-page.md"
    page.write_text(f"```python\nx = 1\n```\n\n```python\n{SLOW} a minute\nprint(x)\n```\n", encoding="utf-8")
    assert [one.printed for one in run_page(page, slow=False)] == [""]
    assert [one.printed for one in run_page(page, slow=True)] == ["", "1\n"]


def test_a_changed_figure_is_found():
    page = PAGES[1]
    drawn = np.asarray(Image.open(figure_of(page)).convert("RGB"))
    assert_same_figure(drawn, figure_of(page), rough=False)
    with pytest.raises(AssertionError, match="of the pixels have changed"):
        assert_same_figure(np.roll(drawn, 3, axis=0), figure_of(page), rough=False)


def test_the_course_is_run_here_and_not_with_the_other_pages():
    import test_blocks

    assert not [page for page in test_blocks.PAGES if COURSE in page.parents]
    assert learn_pages.COURSE == ROOT / "docs" / "learn"
