"""Where overlapping windows lie on an image."""

from __future__ import annotations

from segatlas.errors import UsageError


def window_starts(whole: int, side: int, step: int) -> list[int]:
    """Return where windows of `side` pixels begin along an axis of `whole` pixels, so that every pixel is covered.

    Windows begin every `step` pixels; the last is moved back to end at the border, and an axis shorter than the window
    gets one window. (The rule that published models were tested with.)

    Raises:
        UsageError: a step of 0, or one above the side, which would leave pixels uncovered.
    """
    if not 1 <= step <= side:
        raise UsageError(f"window step {step} must lie between 1 and the window's side {side}")
    last = max(whole - side, 0)
    return [*range(0, last, step), last]
