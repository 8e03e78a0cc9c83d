"""One rule for every value that comes from outside: the arithmetic of networks can hold it, or a file can.

It looks at plain values before any schema does, so that it also covers what no schema describes: the keys of an
architecture, the options of an encoder, the facts in a card.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from segatlas.config.messages import show
from segatlas.errors import Problem

LARGEST = 3.4e38
SMALLEST = 1.18e-38
"""Bounds of single precision, in which networks, losses and optimisers count; below SMALLEST only 0 is exact."""
LARGEST_WHOLE = 2**53
"""Whole numbers up to here survive JSON and float64."""
SMALLEST_SCALE, LARGEST_SCALE = 1e-6, 1e9
"""Bounds of what pixels are divided by; the larger one is the bound of what is subtracted, too."""
LARGEST_VIEW = 8
"""Scale of a test-time view at most."""
NAN_CODE = -(2**31)
"""The raw mask value that stands for "not a number" in masks of floats; recipes write it as nan."""


def size_bounds_fault(bounds: Sequence[float]) -> str:
    """Say what is wrong with the bounds of medium and large objects, `eval.size_bounds`; "" where nothing is."""
    fits = len(bounds) == 2 and all(bound > 0 and math.isfinite(bound) for bound in bounds)
    if fits and bounds[0] < bounds[1] and (bounds[0] < 1) == (bounds[1] < 1):
        return ""
    return "expected two rising numbers, both of pixels, or both below 1: fractions of an image's pixels"


def value_problems(data: Any) -> list[Problem]:
    """Return a problem for each value in plain data that nothing can hold.

    That is a number which is infinite, NaN or beyond single precision, and a text with half a surrogate pair in it.
    """
    found = [(key, value, _fault(value)) for key, value in _leaves(data)]
    return [Problem(key=key, got=_show(value), message=fault) for key, value, fault in found if fault]


def _fault(value: Any) -> str:
    fault = ""
    if isinstance(value, float) and not math.isfinite(value):
        fault = "expected a finite number"
    elif isinstance(value, float) and value != 0 and not SMALLEST <= abs(value) <= LARGEST:
        fault = f"expected 0, or a size that single precision holds: {SMALLEST:g} to {LARGEST:g}"
    elif isinstance(value, int) and abs(value) > LARGEST_WHOLE:
        fault = "expected a number of at most 2^53 either way"
    elif isinstance(value, str):
        fault = text_fault(value)
    return fault


def text_fault(text: str) -> str:
    """Say what is wrong with a text that no file can hold; "" where nothing is."""
    return "holds half of a character (a lone surrogate)" if any("\ud800" <= char <= "\udfff" for char in text) else ""


def _show(value: Any) -> str:
    """Return the value in short; Python prints no whole numbers of thousands of digits, nor half characters."""
    if isinstance(value, int) and value.bit_length() > 10_000:
        return "a number of thousands of digits"
    return show(value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value)


def _leaves(data: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of every single value in nested mappings and lists."""
    if isinstance(data, dict):
        inner = list(data.items())
    elif isinstance(data, list | tuple):
        inner = list(enumerate(data))
    else:
        yield key, data
        return
    for name, item in inner:
        yield from _leaves(item, f"{key}.{name}" if key else str(name))
