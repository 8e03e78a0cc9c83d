"""Ratios and means that may be undefined: NaN, never 0 and never a warning."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def ratio(part: Any, whole: Any) -> np.ndarray:
    """Divide elementwise; NaN where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    undefined = np.full(np.broadcast(part, whole).shape, math.nan)
    return np.asarray(np.divide(part, whole, out=undefined, where=whole > 0))


def mean(values: Any) -> float:
    """Return the mean of what is defined; NaN where nothing is."""
    numbers = np.asarray(values, np.float64)
    defined = numbers[~np.isnan(numbers)]
    return float(defined.mean()) if defined.size else math.nan


def floats(values: np.ndarray) -> tuple[float, ...]:
    """Return floats; NaN always as the one object `math.nan`, so that equal scores compare equal."""
    return tuple(number(value) for value in values)


def number(value: Any) -> float:
    """Return one float, as `floats` does."""
    return math.nan if np.isnan(value) else float(value)
