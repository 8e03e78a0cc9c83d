"""What the caller of a writer knows besides the result."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from segatlas.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class WriterOptions:
    """What the caller of a writer knows.

    model: what the user called it. codes: turns class indices into those of another format, None = the indices.
    pixel_size: how long a pixel's side is, None = not known: lengths are in pixels alone.
    """

    model: str = ""
    codes: Callable[[Any], Any] | None = None
    pixel_size: PixelSize | None = None


@dataclass(frozen=True, kw_only=True)
class PixelSize:
    """How long a pixel's side is. length: above 0. unit: its name, letters such as "um" or "m"."""

    length: float
    unit: str

    @classmethod
    def read(cls, text: str) -> PixelSize:
        """Return what "0.5um" or "30 cm" says.

        Raises:
            UsageError: it is no number above 0 with a unit.
        """
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*([^\W\d_]{1,12})\s*", text)
        length = float(found[1]) if found else 0.0
        if found is None or not 0 < length < math.inf:
            raise UsageError(f"--pixel-size: got {text!r}, expected a number and a unit, such as 0.5um or 30cm")
        return cls(length=length, unit=found[2])
