"""The range of image values: what a file's type can hold, what was found, and the `max_value` that fits."""

from __future__ import annotations

FEWEST_IMAGES = 20
SMALLEST_FRACTION = 1 / 8
"""A found maximum below this fraction of the declared one is doubtful: 12-bit values in 16-bit files reach 1/16."""

_BITS = (8, 10, 12, 14, 16)


def largest_of_type(depth: str) -> float:
    """Return the largest value that images of a type ("uint8", "uint16" or "float32") are expected to hold."""
    return {"uint8": 255.0, "uint16": 65535.0}.get(depth, 1.0)


def fitting_max(depth: str, found: float) -> float:
    """Return the `model.input.max_value` that fits values up to `found`.

    It is the type's own where the values fill more than an eighth of it, and for 8-bit images always. Else it is the
    largest value of 10, 12 or 16 bits (8 too, for floats) that holds them: cameras and scanners of 12 bits write
    16-bit files with values up to 4095.
    """
    limit = largest_of_type(depth)
    if depth == "uint8" or SMALLEST_FRACTION * limit <= found <= limit or not found > 0:
        return limit
    if found <= 1:
        return 1.0
    bits = _BITS[1:] if depth == "uint16" else _BITS
    return next((float(2**count - 1) for count in bits if found <= 2**count - 1), found)


def range_doubt(depth: str, images: int, found: float, declared: float | None) -> str | None:
    """Say what is doubtful about a range, or return None.

    Args:
        depth: type of the images.
        images: how many were looked at.
        found: the largest value in them.
        declared: the `max_value` that is set; None = the type's own.
    """
    limit = largest_of_type(depth) if declared is None else declared
    what = f"{depth} images hold" if declared is None else "is declared (model.input.max_value)"
    if found > limit:
        return f"the largest value found in {images} images is {found:g}, above {limit:g}, which {what}"
    if images >= FEWEST_IMAGES and found < SMALLEST_FRACTION * limit:
        return f"the largest value found in {images} images is {found:g}, less than 1/8 of {limit:g}, which {what}"
    return None


def range_repair(depth: str, found: float) -> str:
    """Return what to add to a recipe whose range does not fit."""
    return f'if it is so in all images, add "model.input.max_value={fitting_max(depth, found):g}"'
