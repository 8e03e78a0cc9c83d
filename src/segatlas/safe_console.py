"""A console that shows names as they are and obeys none of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.segment import Segment

from segatlas.printable import printable_lines


class SafeConsole(Console):
    """Rich's console with a last guard: text to be shown has no control characters but line breaks and tabs.

    The console's own controls (colours, moving the cursor) are not text and stay.
    """

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the segments of what is printed, their text made safe."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable_lines(segment.text), segment.style)
