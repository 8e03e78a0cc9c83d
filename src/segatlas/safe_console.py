"""A console that shows names as they are and obeys none of them, and the progress bar on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions
from rich.segment import Segment

from segatlas.printable import printable_lines

if TYPE_CHECKING:
    from rich.progress import Progress


class SafeConsole(Console):
    """Rich's console with a last guard: text to be shown has no control characters but line breaks and tabs.

    The console's own controls (colours, moving the cursor) are not text and stay.
    """

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the segments of what is printed, their text made safe."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable_lines(segment.text), segment.style)


class ProgressBar:
    """One line that tells how far something is."""

    def __init__(self, progress: Progress, text: str, total: int | None):
        self._progress, self._task = progress, progress.add_task(text, total=total)

    def report(self, done: int, total: int | None) -> None:
        """Show that so many are done, of so many in all; None where nobody knows."""
        self._progress.update(self._task, completed=done, total=total)

    def step(self, text: str | None = None) -> None:
        """Show that one more is done, and another text beside the bar."""
        self._progress.update(self._task, advance=1, description=text)


@contextmanager
def progress_bar(
    text: str = "",
    *,
    total: int | None = None,
    in_bytes: bool = False,
    text_last: bool = False,
    shown: bool = True,
    console: Console | None = None,
) -> Iterator[ProgressBar]:
    """Yield a bar that is drawn where the console is a terminal, and is gone afterwards.

    Args:
        text: beside the bar, as it is: no markup.
        total: how many there are, where that is known before.
        in_bytes: they are bytes, with a size and a speed.
        text_last: the text stands behind the bar, for texts of changing length.
        shown: False: nothing is drawn anywhere.
        console: by default one on stderr.
    """
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    console = console or SafeConsole(stderr=True, highlight=False, soft_wrap=True, markup=False)
    says = TextColumn("{task.description}", markup=False)
    bar = (BarColumn(), DownloadColumn() if in_bytes else MofNCompleteColumn(), TimeRemainingColumn())
    columns: tuple[ProgressColumn, ...] = (*bar, says) if text_last else (says, *bar)
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:
        yield ProgressBar(progress, text, total)
