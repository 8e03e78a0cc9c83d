"""Reads and runs pages that are notebooks too, `docs/learn` and `docs/notebooks`: what they print and what they draw.

A page is Markdown with ```python blocks, which share one namespace. What a block prints stands behind it as ```text. A
block that ends in `plt.show()` draws the page's figure, figures/STEM.png. A block whose first line begins with SLOW
takes longer than the others; it is the last one, `make test` leaves it out, and its figure is figures/STEM-slow.png. A
line that begins with !segatlas is a command, which runs in this process. Pages of the course in Chinese, in zh/, have
the same blocks and figures.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from docs_blocks import ROOT
from PIL import Image
from typer.testing import CliRunner

from segatlas.cli.main import app

COURSE = ROOT / "docs" / "learn"
PAGES = sorted(COURSE.glob("[0-9]*.md"))
CHINESE = sorted((COURSE / "zh").glob("[0-9]*.md"))
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.md"))
SLOW = "# slow:"
PART = re.compile(r"^```(\w+)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
FIGURE = re.compile(r"^!\[(.*?)\]\((.*?)\)\n", re.MULTILINE)
DOWNLOAD = re.compile(r"^\[.*?\]\(\S+\.ipynb\).*\n", re.MULTILINE)
"""The line of a page that leads to its notebook, which has none."""
COMMAND = re.compile(r"^!(segatlas .*)$", re.MULTILINE)
DOTS = 110
"""A figure's pixels an inch."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A piece of a page. kind: "prose", or the language of a block."""

    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A block that was run: its lines, what it printed, the figure (H, W, 3) uint8 that it showed."""

    code: str
    printed: str
    drawn: np.ndarray | None

    @property
    def is_slow(self) -> bool:
        return self.code.startswith(SLOW)


def parts_of(page: Path) -> list[Part]:
    """Return prose and blocks of a page in order; together they are its text."""
    text = page.read_text(encoding="utf-8")
    parts, place = [], 0
    for found in PART.finditer(text):
        parts += [Part(kind="prose", text=text[place : found.start()]), Part(kind=found[1], text=found[2])]
        place = found.end()
    return [part for part in [*parts, Part(kind="prose", text=text[place:])] if part.text.strip()]


def blocks_of(page: Path) -> list[tuple[str, str]]:
    """Return the Python blocks of a page, each with the lines that the page says it prints."""
    parts = parts_of(page)
    follow = [*parts[1:], Part(kind="prose", text="")]
    pairs = zip(parts, follow, strict=True)
    return [(part.text, then.text if then.kind == "text" else "") for part, then in pairs if part.kind == "python"]


def figure_of(page: Path, *, slow: bool = False) -> Path:
    """Return the file of a page's figure, or of its slow block's; both languages have the same."""
    folder = page.parent if page.parent.name == "notebooks" else COURSE
    return folder / "figures" / f"{page.stem}{'-slow' if slow else ''}.png"


def run_page(page: Path, *, slow: bool) -> Iterator[Ran]:
    """Run the blocks of a page in order where the process stands, those that are slow only where asked.

    Raises:
        AssertionError: a block failed; the page is named.
    """
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import torch

    torch.manual_seed(0)
    drawn: list[np.ndarray] = []
    namespace: dict[str, Any] = {"__name__": page.stem, "run_command": run_command}
    show, plt.show = plt.show, lambda: drawn.append(_pixels(plt))
    try:
        for code, _ in blocks_of(page):
            if code.startswith(SLOW) and not slow:
                continue
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                try:
                    exec(compile(python_of(code), str(page), "exec"), namespace)
                except Exception as error:
                    raise AssertionError(f"{page.name}: {type(error).__name__}: {error}\n{code}") from error
            yield Ran(code=code, printed=printed.getvalue(), drawn=drawn.pop() if drawn else None)
    finally:
        plt.show = show
        plt.close("all")


def python_of(code: str) -> str:
    """Return a block with its commands as calls of `run_command`."""
    return COMMAND.sub(lambda found: f"run_command({found[1]!r})", code)


def run_command(line: str) -> None:
    """Run a command of SegAtlas and print what it prints; as in a notebook its exit code is not looked at."""
    result = CliRunner().invoke(app, shlex.split(line)[1:], env=os.environ | {"COLUMNS": "100"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    print(result.output, end="")


def _pixels(plt: Any) -> np.ndarray:
    """Return the figure that is shown, (H, W, 3) uint8, and close it."""
    file = io.BytesIO()
    plt.savefig(file, format="png", dpi=DOTS)
    plt.close("all")
    return np.asarray(Image.open(file).convert("RGB"))


def notebook(page: Path) -> str:
    """Return a page as a notebook (nbformat 4) without outputs: figures and printed lines come when it is run."""
    cells = []
    for number, part in enumerate(parts_of(page)):
        text = FIGURE.sub("", DOWNLOAD.sub("", part.text)).strip() if part.kind == "prose" else part.text.rstrip("\n")
        if part.kind == "text" or not text:
            continue
        cell: dict[str, Any] = {"cell_type": "markdown", "id": f"part-{number}", "metadata": {}}
        if part.kind == "python":
            cell |= {"cell_type": "code", "execution_count": None, "outputs": []}
        cells.append(cell | {"source": text.splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"


def with_printed(page: Path, ran: list[Ran]) -> str:
    """Return a page's text with what its blocks printed behind them."""
    text = page.read_text(encoding="utf-8")
    printed = {one.code: one.printed for one in ran}

    def block(found: re.Match[str]) -> str:
        lines = printed.get(found[1])
        shown = found[2] or "" if lines is None else f"```text\n{lines}```\n" if lines else ""
        return f"```python\n{found[1]}```\n" + ("\n" + shown if shown else "")

    return re.sub(r"^```python\n(.*?)^```\n(?:\n?(^```text\n.*?^```\n))?", block, text, flags=re.DOTALL | re.MULTILINE)
