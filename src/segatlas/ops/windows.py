"""Where overlapping windows lie on a picture."""

from __future__ import annotations

from segatlas.errors import UsageError

Box = tuple[int, int, int, int]


def window_boxes(size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]) -> list[Box]:
    """Return windows that cover a picture, row by row.

    Windows start every `stride` pixels; the last of a row or column is shifted back so that it ends at the border, and
    a picture smaller than the window gets one window of its own size. (The rule published models were tested with.)

    Args:
        size: (H, W) of the picture.
        crop: (h, w) of a window.
        stride: (h, w) steps, at most the crop.

    Returns:
        (top, left, bottom, right) in pixels, bottom and right exclusive.

    Raises:
        UsageError: a stride of 0, or one above the crop, which would leave pixels uncovered.
    """
    for step, side in zip(stride, crop, strict=True):
        if not 1 <= step <= side:
            raise UsageError(f"window stride {stride} must lie between 1 and the crop {crop}")
    rows, columns = (_starts(*facts) for facts in zip(size, crop, stride, strict=True))
    height, width = (min(side, whole) for side, whole in zip(crop, size, strict=True))
    return [(top, left, top + height, left + width) for top in rows for left in columns]


def _starts(whole: int, side: int, step: int) -> list[int]:
    last = max(whole - side, 0)
    return [*range(0, last, step), last]
