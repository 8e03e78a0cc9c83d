"""Palettes by name or file, for drawings in other colours than the model's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from segatlas.config.messages import unknown
from segatlas.data.datasets import DATASETS, dataset_class
from segatlas.data.formats.classes import read_class_file
from segatlas.data.formats.palettes import read_palette, voc_palette
from segatlas.errors import UsageError
from segatlas.palette import default_palette

Color: TypeAlias = tuple[int, int, int]
Palette: TypeAlias = str | Path | Sequence[Color]
"""Colours by class index, the name of a palette, or a file of one."""

RULES: dict[str, Callable[[int], tuple[Color, ...]]] = {"default": default_palette, "voc": voc_palette}
"""Palettes of any length. Those of datasets besides: each that has fixed classes."""


def palette_names() -> tuple[str, ...]:
    """Return the names of the palettes that are built in."""
    return (*RULES, *(name for name in DATASETS if name not in RULES and _colors_of(name)))


def find_palette(palette: Palette, count: int) -> tuple[Color, ...]:
    """Return the colours of so many classes.

    Args:
        palette: colours, a name of `palette_names`, or a file, see `data.formats.palettes.read_palette`.
        count: classes.

    Raises:
        UsageError: no such name or file, or fewer colours than classes.
        DataError: a file that holds something else.
    """
    if not isinstance(palette, str | Path):
        colors, name = tuple(tuple(color) for color in palette), "palette"
    elif str(palette) in RULES:
        return RULES[str(palette)](count)
    elif Path(palette).is_file():
        colors, name = read_palette(palette), str(palette)
    else:
        name = str(palette)
        known = palette_names()
        if name not in known:
            raise UsageError(f"palette: got {name!r}: {unknown('palette, and no such file', name, known)}")
        colors = _colors_of(name)
    if len(colors) < count:
        raise UsageError(f"palette: {name} has {len(colors)} colours, and there are {count} classes")
    return colors[:count]  # type: ignore[return-value]


def _colors_of(dataset: str) -> tuple[Color, ...]:
    colors = getattr(dataset_class(dataset), "palette", ())
    return tuple(colors) if isinstance(colors, tuple) else ()


def _names_of(dataset: str) -> tuple[str, ...]:
    names = getattr(dataset_class(dataset), "classes", ())
    return tuple(names) if isinstance(names, tuple) else ()


def find_names(classes: str | Path | None, count: int) -> tuple[str, ...]:
    """Return the names of classes: of a dataset with fixed ones, or of a file, JSON or a name a line; None = numbers.

    Raises:
        UsageError: no such dataset or file, or fewer names than classes.
        DataError: a file that holds something else.
    """
    if classes is None:
        return tuple(f"class_{index}" for index in range(count))
    if Path(classes).is_file():
        names = read_class_file(Path(classes)).names
    else:
        known = [name for name in DATASETS if _names_of(name)]
        if str(classes) not in known:
            raise UsageError(
                f"classes: got {str(classes)!r}: {unknown('dataset, and no such file', str(classes), known)}"
            )
        names = _names_of(str(classes))
    if len(names) < count:
        raise UsageError(f"classes: {classes} names {len(names)} classes, and the labels have {count}")
    return names
