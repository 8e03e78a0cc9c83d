"""Class names and colours for weights that bring none: those of the dataset that they were trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segatlas.data.datasets import DATASETS, dataset_class
from segatlas.palette import Color, default_palette

BY_COUNT = {150: "ade20k", 19: "cityscapes", 21: "voc"}
"""Number of classes -> the dataset that published weights with this number are trained on."""


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """Names and colours by index, and a note for people where they were not in the file ("" where they were)."""

    classes: tuple[str, ...]
    palette: tuple[Color, ...]
    note: str


def class_list(count: int, classes: Sequence[str], palette: Sequence[Color], data_set: str) -> ClassList:
    """Return names and colours for `count` classes.

    Those given are taken where their number agrees, else those of the dataset named, else those of the well-known data
    set with this number of classes, else "class_0", "class_1", ..., as in data without names

    Args:
        count: classes of the network.
        classes: names found in the file, () where there are none.
        palette: colours found in the file, () where there are none.
        data_set: its name, "" where it is not known.
    """
    if len(classes) == count:
        colors = tuple(palette) if len(palette) == count else default_palette(count)
        return ClassList(classes=tuple(classes), palette=colors, note="")
    found = _published(data_set, count)
    if found is not None:
        return ClassList(classes=found[0], palette=found[1], note="")
    why = "the file has none"
    if classes:
        why = f"{len(classes)} name{'s were' if len(classes) > 1 else ' was'} found for {count} classes"
    guess = "" if data_set else BY_COUNT.get(count, "")
    found = _published(guess, count)
    if found is not None:
        note = f"class names of {guess}, by their number ({count}); {why}"
        return ClassList(classes=found[0], palette=found[1], note=note)
    names = tuple(f"class_{index}" for index in range(count))
    told = f"class names are '{names[0]}' to '{names[-1]}'" if count > 1 else f"the class name is '{names[0]}'"
    return ClassList(classes=names, palette=default_palette(count), note=f"{told}: {why}")


def _published(data_set: str, count: int) -> tuple[tuple[str, ...], tuple[Color, ...]] | None:
    """Return names and colours of a dataset of ours, None where there is none or it has another number."""
    if data_set not in DATASETS:
        return None
    kind = dataset_class(data_set)
    classes, palette = getattr(kind, "classes", ()), getattr(kind, "palette", ())
    return (tuple(classes), tuple(palette)) if len(classes) == len(palette) == count else None
