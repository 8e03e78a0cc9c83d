"""Keys of recipes and of written files that have another name today: the old spelling is still read.

Each layer of a recipe (a file, one of its bases, a dict, the `key=value` words) is brought to today's names by itself,
before layers meet: a higher layer's old key overrides a lower layer's new one. A log line says which keys were old.
The flat spelling of a network's encoder is no old one, but is brought to the nested one at the same time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from segatlas.config.encoder_keys import contradictions, nested_path, nested_value
from segatlas.config.yaml_tree import Node, Place, from_plain
from segatlas.errors import Problem

LOGGER = logging.getLogger("segatlas")

MODEL = ("model",)
"""Where the keys of a network stand."""

OLD_KEYS = {
    "data.val_share": "val_fraction",
    "losses.*.dice_share": "dice_fraction",
    "transforms.blur.share": "probability",
    "transforms.photometric.share": "probability",
}
"""Old dotted key of a recipe -> its last word today; `*` stands for the number of a list's item."""

OLD_COLUMNS = {"pictures_per_s": "images_per_s"}
"""The same of columns of a run's metrics.csv."""

OLD_FACTS = {"pictures": "images"}
"""The same of a split's entry in a run's env.json."""


def todays_name(name: str, names: Mapping[str, str], *, of: str) -> str:
    """Return the name of today of a column or fact in a file of a run, and say so where it has another one there."""
    today = names.get(name, name)
    if today != name:
        LOGGER.warning("%s: %s is called %s; it is read under its new name", of, name, today)
    return today


def todays_path(path: Sequence[str]) -> tuple[str, ...]:
    """Return the parts of a dotted key, each under its name of today."""
    names = tuple(_todays_name(path[:count], part) for count, part in enumerate(path))
    return (*MODEL, *nested_path(names[1:])) if names[:1] == MODEL else names


def todays_keys(node: Node, path: tuple[str, ...] = ()) -> Node:
    """Return a part of a recipe, which stands at `path`, with every key under its name of today."""
    if isinstance(node.value, list):
        items = [todays_keys(item, (*path, str(number))) for number, item in enumerate(node.value)]
        return Node(value=items, place=node.place)
    if isinstance(node.value, dict):
        group: dict[str, Node] = {}
        for key, child in node.value.items():
            name = _todays_name(path, key)
            if name == key or name not in node.value:
                group[name] = todays_keys(child, (*path, name))
        node = Node(value=group, place=node.place)
    return nested_value(node, path[1:]) if path[:1] == MODEL else node


def grouped(node: Node, path: Sequence[str]) -> Node:
    """Return what a word sets at `path`; an encoder's name alone as the group that further words may add to."""
    return nested_value(node, path[1:]) if tuple(path[:1]) == MODEL and len(path) > 1 else node


def todays_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a whole recipe of plain values, such as a checkpoint holds, with the keys of today."""
    plain: dict[str, Any] = todays_keys(from_plain(dict(recipe), Place(file="checkpoint"))).plain()
    return plain


def tell_old_keys(layer: Node) -> list[Problem]:
    """Say in one log line which keys of a layer have another name today.

    Returns a problem for each that stands there under both names, and for what the two spellings of an encoder
    contradict each other in.
    """
    model = layer.child("model")
    told: list[str] = []
    problems = [replace(p, key=f"model.{p.key}") for p in ([] if model is None else contradictions(model))]
    for path, place, both in _old_keys(layer, ()):
        old, new = ".".join(path), _todays_name(path[:-1], path[-1])
        if both is None:
            told.append(f"{old} is called {new} ({_shown(place)})")
        else:
            message = f"the old name of {new}, which is set too ({_shown(both)}): leave one of them out"
            problems.append(Problem(key=old, file=place.file, line=place.line, message=message))
    if told:
        LOGGER.warning("old keys, read under their new names: %s", "; ".join(told))
    return problems


def _old_keys(node: Node, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Place, Place | None]]:
    """Yield (path, place, place of the same key under its name of today or None) of every old key."""
    if isinstance(node.value, dict):
        children = node.value
    else:
        children = {str(number): item for number, item in enumerate(node.value)} if isinstance(node.value, list) else {}
    for key, child in children.items():
        name = _todays_name(path, key)
        if name != key:
            yield (*path, key), child.place, children[name].place if name in children else None
        yield from _old_keys(child, (*path, key))


def _todays_name(above: Sequence[str], key: str) -> str:
    """Return the name of `key` below the path `above`."""
    dotted = ".".join("*" if part.isdigit() else part for part in (*above, key))
    return OLD_KEYS.get(dotted, key)


def _shown(place: Place) -> str:
    return place.file if place.line is None else f"{place.file}:{place.line}"
