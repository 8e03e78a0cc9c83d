"""Plain vision transformers in foreign files: which of ours a file has."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

from segatlas.conversion.importers.foreign import ForeignWeights
from segatlas.encoders.vit import FORMS, VisionTransformerForm, VisionTransformerOptions
from segatlas.errors import WeightsError

BY_WIDTH = {form.width: name for name, form in FORMS.items() if name.startswith("vit_")}
"""Width -> our name of the plain transformer that has it."""


def form_of(file: ForeignWeights, *, width: int, hidden: int, heads: str) -> tuple[str, VisionTransformerForm]:
    """Return name and form of the transformer of a width.

    Args:
        file: the file.
        width: channels of a token.
        hidden: channels within the feed-forward part.
        heads: where the settings hold the number of attention heads, which weights cannot tell.

    Raises:
        WeightsError: none of ours.
    """
    name = BY_WIDTH.get(width)
    if name is None:
        known = ", ".join(map(str, sorted(BY_WIDTH)))
        raise WeightsError(f"a plain transformer of width {width}; known widths are {known}")
    form, stated = FORMS[name], file.stated(heads)
    if hidden != 4 * width or stated not in (None, form.heads):
        told = f"{stated or form.heads} heads and {hidden} channels between"
        raise WeightsError(f"a plain transformer of width {width} with {told}; known are {form.heads} and {4 * width}")
    return name, form


def dino_options(
    file: ForeignWeights, family: str, *, width: int, hidden: int, gated: bool, heads: str, told: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Return name and options of the transformer of DINOv2 or DINOv3 ("dinov2", "dinov3") of a width.

    Narrower and wider ones than the published are plain transformers with the options that make them the same.

    Args:
        file: the file.
        family: as above.
        width: channels of a token.
        hidden: channels within the feed-forward part, those of the gate not counted.
        gated: that part has a gate.
        heads: as of `form_of`.
        told: what the file tells of other options, by name.

    Raises:
        WeightsError: none of ours.
    """
    fitting = [
        name
        for name, form in FORMS.items()
        if form.width == width and form.gated == gated and (name.startswith(family) or not form.rotary)
    ]
    first = sorted(fitting, key=lambda name: not name.startswith(family))[:1]
    if not first or (family == "dinov3" and not FORMS[first[0]].rotary):
        raise WeightsError(f"a {family} of width {width}{', with a gate' if gated else ''}: none of the known ones")
    form, stated = FORMS[first[0]], file.stated(heads)
    if stated not in (None, form.heads):
        raise WeightsError(f"{heads} = {stated}: only {form.heads} is supported at a width of {width}")
    own = {} if hidden == (form.hidden or 4 * width) else {"hidden": hidden}
    return first[0], {**without_defaults(dict(told), form), **own}


def image_size(cells: int, patch_size: int, stated: Any, *, tensor: str) -> tuple[int, int]:
    """Return height and width of the images that stored positions are for: as stated, else those of a square grid.

    Args:
        cells: positions of patches.
        patch_size: height and width of a patch.
        stated: the size that settings tell, a number or two; None where they do not. One of another grid is not used.
        tensor: their name of the positions.

    Raises:
        WeightsError: no square grid, and settings do not tell which other.
    """
    if stated is not None:
        height, width = (stated, stated) if isinstance(stated, int) else (list(stated) * 2)[:2]
        if (height // patch_size) * (width // patch_size) == cells:
            return height, width
    side = isqrt(max(cells, 0))
    if side * side != cells:
        told = "" if stated is None else f", and the image size {stated} that is stated has others"
        raise WeightsError(f"{tensor} holds positions of {cells} patches: expected those of a square grid{told}")
    return side * patch_size, side * patch_size


def image_size_of_table(rows: int, patch_size: int, *, tensor: str) -> tuple[int, int]:
    """Return height and width of the images whose relative positions a table of so many rows is for: a square grid.

    Raises:
        WeightsError: no square grid has.
    """
    side = isqrt(max(rows - 3, 0))
    if side * side != rows - 3 or side % 2 == 0:
        raise WeightsError(f"{tensor} has {rows} rows: expected those of a square grid, (2h - 1)², and 3")
    return (side + 1) // 2 * patch_size, (side + 1) // 2 * patch_size


def without_defaults(options: dict[str, Any], form: VisionTransformerForm) -> dict[str, Any]:
    """Return those options that say something else than the encoder's name does."""
    own = VisionTransformerOptions()
    default = {key: getattr(form, key, None) if getattr(own, key) is None else getattr(own, key) for key in options}
    return {key: value for key, value in options.items() if value != default[key]}
