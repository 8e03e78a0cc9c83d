"""The range of image values: what a file's type can hold, what was found, and the `max_value` that fits."""

from __future__ import annotations

FEWEST_IMAGES = 20
SMALLEST_FRACTION = 1 / 8
"""A found maximum below this fraction of the declared one is doubtful: 12-bit values in 16-bit files reach 1/16."""

FAR_ABOVE = 8.0
"""How many times full scale the largest value of an image may be before it is taken for one of another scale."""

DEFAULT_MAX = 255.0
"""The `model.input.max_value` of a recipe that states none."""

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


def full_scale(depth: str, max_value: float) -> float:
    """Return the stored value that becomes 1.0 in an image of type `depth` for a model of `max_value`.

    That is `max_value`, but where it is the full scale of the other integer type (255 for uint16, 65535 for uint8) the
    image's own full scale is meant: 16-bit images fit an 8-bit model, and the other way round.
    """
    full = {"uint8": 255.0, "uint16": 65535.0}
    return full.get(depth, max_value) if max_value in full.values() else max_value


def scale_fault(depth: str, lowest: float, highest: float, max_value: float) -> str:
    """Say why an image cannot be meant on the scale of a model, or return "" where it can.

    An image alone shows little: a dark one has low values, too. Told are a float image that does not exceed 1 for a
    model of larger values, an image of 8 bits for a model of more, 16 bits with low values for a model of 8 (they may
    be 10 or 12 bits: `full_scale` takes them for 16), and values far above full scale or far below 0.

    Args:
        depth: uint8, uint16 or float32.
        lowest: smallest stored value of the image.
        highest: largest stored value of the image.
        max_value: the model's, see `full_scale`.
    """
    scale = full_scale(depth, max_value)
    found = f"largest value {highest:g} in {depth}; full scale of the model is {scale:g}"
    if lowest < far_below_zero(scale):
        return (
            f"smallest value {lowest:g} in {depth}; full scale of the model is {scale:g}; if it means 'no data', "
            "write another value there"
        )
    if lowest == highest == 0:
        return ""
    if _is_unit_float(depth, highest, scale):
        return f"{found}: are these values 0..1?" if highest > 0 else f"{found}: are these on another scale?"
    if depth == "uint8" and scale > 255:
        return f"{found}: an 8-bit image does not reach it"
    if depth == "uint16" and max_value == 255 and highest < scale * SMALLEST_FRACTION:
        return f"{found} for 16-bit images: are these fewer bits?"
    return f"{found}, far below" if highest > scale * FAR_ABOVE else ""


def range_doubt(depth: str, images: int, found: float, declared: float | None) -> str | None:
    """Say what is doubtful about a range, or return None.

    Args:
        depth: type of the images.
        images: how many were looked at.
        found: the largest value in them.
        declared: the `max_value` that is set; None = the default.
    """
    limit = full_scale(depth, DEFAULT_MAX if declared is None else declared)
    if depth != "float32" and limit == largest_of_type(depth):
        what = f"which {depth} images hold"
    else:
        what = (
            "the default of model.input.max_value" if declared is None else "which is declared (model.input.max_value)"
        )
    if found > limit:
        return f"the largest value found in {images} images is {found:g}, above {limit:g}, {what}"
    enough = images >= FEWEST_IMAGES or _is_unit_float(depth, found, limit)
    if enough and found < SMALLEST_FRACTION * limit:
        return f"the largest value found in {images} images is {found:g}, less than 1/8 of {limit:g}, {what}"
    return None


def no_data_doubt(depth: str, images: int, lowest: float, declared: float | None) -> str | None:
    """Say that the smallest value found looks like a mark of pixels without data, or return None."""
    if lowest >= far_below_zero(full_scale(depth, DEFAULT_MAX if declared is None else declared)):
        return None
    return f"the smallest value found in {images} images is {lowest:g}, far below 0: does it mean 'no data'?"


NO_DATA_REPAIR = "write a value of your choice there, and mark the pixels 255 in the masks"


def _is_unit_float(depth: str, highest: float, scale: float) -> bool:
    """Whether these are floats that do not exceed 1 where 8 bits or more are expected: no dark image, another scale."""
    return depth == "float32" and highest <= 1 and scale >= 128


def far_below_zero(scale: float) -> float:
    """Return the value below which numbers mark pixels without data; decibels and Hounsfield units lie above."""
    return -FAR_ABOVE * max(scale, 255.0)


def range_repair(depth: str, found: float) -> str:
    """Return what to add to a recipe whose range does not fit."""
    return f'if it is so in all images, add "model.input.max_value={fitting_max(depth, found):g}"'
