"""The course in docs/learn, and docs/notebooks: runs pages, writes what follows. `python tools/learn.py [STEM...]`.

That is: behind each block the lines that it prints, in both languages; the figures; the notebooks. A page in Chinese
takes the lines from the English one, whose blocks it has. tests/docs/test_learn.py compares all of it.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests" / "docs")]

from learn_pages import CHINESE, NOTEBOOKS, PAGES, Ran, figure_of, notebook, run_page, with_printed  # noqa: E402


def write_page(page: Path) -> str:
    """Run one page and write all that follows from it; returns a line about it."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        ran = list(run_page(page, slow=True))
    for one in ran:
        if one.drawn is not None and (page in NOTEBOOKS or not one.is_slow):
            write_figure(one, figure_of(page, slow=one.is_slow))
    for text in (page, *(other for other in CHINESE if page in PAGES and other.stem == page.stem)):
        text.write_text(with_printed(text, ran), encoding="utf-8")
        text.with_suffix(".ipynb").write_text(notebook(text), encoding="utf-8")
    size = figure_of(page).stat().st_size // 1024 if figure_of(page).exists() else 0
    return f"{page.stem}: {time.perf_counter() - start:.1f} s, figure {size} kB"


def write_figure(ran: Ran, file: Path) -> None:
    """Write a figure in 256 colours."""
    file.parent.mkdir(exist_ok=True)
    colors = Image.fromarray(ran.drawn).quantize(256, dither=Image.Dither.NONE)
    colors.save(file, optimize=True)


if __name__ == "__main__":
    for chosen in (*PAGES, *NOTEBOOKS):
        if not sys.argv[1:] or chosen.stem in sys.argv[1:]:
            print(write_page(chosen), flush=True)
