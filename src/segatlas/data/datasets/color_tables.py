"""The keys that say what colours of masks mean, as they are typed behind a folder, and the colours that masks show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from segatlas.data.datasets.foreign import LABELMAP_FILE, WHERE_KEYS_GO, listed, read_labelmap
from segatlas.data.formats.classes import ClassNames
from segatlas.data.formats.masks import Color, colors_in, read_raw
from segatlas.errors import DataError

MOST_COLORS = 32
"""In a table that is printed; more are mixtures, which only `data check` tells from classes."""


def table_words(labels: Mapping[Color, int], names: Sequence[str] = ()) -> str:
    """Return the words that name colours, and classes where `names` are given."""
    table = ", ".join(f"'{red},{green},{blue}': {label}" for (red, green, blue), label in labels.items())
    classes = f' "data.classes={listed(names)}"' if names else ""
    return f'"data.label_colors={{{table}}}"{classes}'


def named_colors(root: Path) -> ClassNames | None:
    """Return what an annotation tool has written into `labelmap.txt`; None where there is none, or it cannot be used.

    It says what colours mean and not what indices mean, so that it counts for colour masks alone.
    """
    found = read_labelmap(root / LABELMAP_FILE)
    names, colors = tuple(name for name, _ in found), tuple(color for _, color in found)
    if len(names) < 2 or not all(names) or len(set(names)) < len(names) or len(set(colors)) < len(colors):
        return None
    return ClassNames(names=names, colors=colors)


def color_fault(masks: Iterable[Path], root: Path) -> DataError | None:
    """Return what is wrong with a set whose masks are stored as colours, as most of them are; None where they are not.

    A mask that shows nothing but the background is black, and read as class 0: it is one of them.
    """
    colored: dict[Path, set[Color]] = {}
    others = 0
    for path in masks:
        with suppress(DataError):
            raw = read_raw(path)
            if raw.ndim == 3:
                colored[path] = set(colors_in(raw))
            else:
                others += 1
    first = next((path for path, colors in colored.items() if any(len(set(color)) > 1 for color in colors)), None)
    if first is None or len(colored) <= others:
        return None
    found = set().union(*colored.values())
    text = f"is a colour mask, as {len(colored)} of {len(colored) + others} are: {len(found)} colours instead of class "
    text += "indices"
    if len(found) > MOST_COLORS:
        return DataError(f"{text}; `segatlas data check {root}` tells which of them are classes", first)
    known = named_colors(root)
    if known is not None and found <= set(known.colors or ()):
        labels, names = dict(zip(known.colors or (), range(len(known.names)), strict=True)), known.names
    else:
        labels, names = {color: label for label, color in enumerate(sorted(found))}, ()
    return DataError(f"{text}; {WHERE_KEYS_GO} {table_words(labels, names)}", first)
