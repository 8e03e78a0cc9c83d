"""What the caller of a writer knows besides the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class WriterOptions:
    """model: what the user called it. codes: turns class indices into those of another format, None = the indices."""

    model: str = ""
    codes: Callable[[Any], Any] | None = None
