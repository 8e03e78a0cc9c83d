"""What a higher layer of a recipe takes out of the layers below it.

The layers, lowest first: the schema's defaults, bases in their order, the recipe itself, all `key=value` words as one.
Keys merge one by one, but some belong together, and a lower layer must not speak for what a higher one has replaced:

* keys of `model:` that a lower layer wrote for another network;
* keys that exclude each other, such as `train.steps` and `train.epochs`.

What stands in the same layer stays, so contradictions within one are still found by the rules.
"""

from __future__ import annotations

import logging
from typing import Any

from segatlas.config.messages import show
from segatlas.config.yaml_tree import Node, merge

LOGGER = logging.getLogger("segatlas")
OF_ANY_NETWORK = ("name", "num_classes", "in_channels", "start_from", "input", "aux")
"""Keys of `model:` that say nothing about which network it is. `aux` goes with the recipe's losses, not with it."""

REPLACED: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
    ("train.steps", None, ("train.epochs",)),
    ("train.epochs", None, ("train.steps",)),
    ("train.val_every", None, ("train.val_epochs",)),
    ("train.val_epochs", None, ("train.val_every",)),
    ("model.input.mode", "whole", ("model.input.crop", "model.input.stride")),
    ("run.name", None, ("run.dir",)),
)
"""Where a layer sets the first key (to that value, or to any but null), the other keys of lower layers are left out."""


def lay_over(below: Node, above: Node) -> Node:
    """Return `above` merged over `below`, less what it replaces there. Both are whole recipes, or parts of one."""
    return merge(make_room(below, above), above)


def make_room(below: Node, above: Node) -> Node:
    """Return `below` without the keys that `above` replaces. A warning names the keys of another network."""
    for key, value, others in REPLACED:
        stated = _value(above, key)
        if stated is None or (value is not None and stated != value):
            continue
        for other in others:
            if _value(above, other) is None:
                below = _without(below, other.split("."))
    return _without_other_networks(below, above)


def _without_other_networks(below: Node, above: Node) -> Node:
    """Leave out the keys of `model:` that were written for another network than the one that `above` names.

    A layer that names no network wrote its keys for whichever comes: they stay.
    """
    earlier, name = _value(below, "model.name"), _value(above, "model.name")
    model, own = below.child("model"), above.child("model")
    if earlier is None or name is None or earlier == name or model is None:
        return below
    foreign = [key for key, node in model.value.items() if not _is_of_any_network(key, node)]
    for key in foreign:
        below = _without(below, ["model", key])
    told = [key for key in foreign if own is not None and own.child(key) is None]
    if told:
        keys = ", ".join(_told(key, model.value[key]) for key in told)
        LOGGER.warning("model.name is %s: left out what was written for %s: %s", name, earlier, keys)
    return below


def _is_of_any_network(key: str, node: Node) -> bool:
    """Tell whether a key stays; "imagenet" means the weights of whatever encoder it is, but a file is of one."""
    return key in OF_ANY_NETWORK or (key == "encoder_weights" and node.value in (None, "imagenet"))


def _told(key: str, node: Node) -> str:
    line = f":{node.place.line}" if node.place.line else ""
    return f"{key} = {show(node.plain())} ({node.place.file}{line})"


def _value(tree: Node, key: str) -> Any:
    """Return the single value at a dotted key, or None where there is none."""
    node: Node | None = tree
    for part in key.split("."):
        node = None if node is None else node.child(part)
    return None if node is None or isinstance(node.value, dict | list) else node.value


def _without(tree: Node, path: list[str]) -> Node:
    child = tree.child(path[0])
    if child is None or not isinstance(tree.value, dict):
        return tree
    kept = {key: node for key, node in tree.value.items() if key != path[0]}
    if len(path) > 1:
        kept = {**tree.value, path[0]: _without(child, path[1:])}
    return Node(value=kept, place=tree.place)
