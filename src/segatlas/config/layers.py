"""What a higher layer of a recipe takes out of the layers below it.

The layers, lowest first: the schema's defaults, bases in their order, the recipe itself, all `key=value` words as one.
Keys merge one by one, but some belong together, and a lower layer must not speak for what a higher one has replaced:

* keys of `model:` that a lower layer wrote for another network, or of its `host:` for another one inside, keys of
  `data:` that it wrote for another dataset;
* keys that exclude each other, such as `train.steps` and `train.epochs`.

What stands in the same layer stays, so contradictions within one are still found by the rules.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from segatlas.config.encoder_keys import HOST
from segatlas.config.messages import show
from segatlas.config.yaml_tree import Node, merge

LOGGER = logging.getLogger("segatlas")
OF_ANY_NETWORK = ("name", "num_classes", "in_channels", "start_from", "start_partial", "input", "aux")
"""Keys of `model:` that say nothing about which network it is. `aux` goes with the recipe's losses, not with it."""

OF_ANY_DATA_SET = ("name", "root", "workers", "store", "store_reserve_gb")
"""Keys of `data:` that do not say what the files mean. `root` says where they lie: it stays, and that is told."""

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
    """Return `below` without the keys that `above` replaces. A warning names those of another network or dataset."""
    for key, value, others in REPLACED:
        stated = _value(above, key)
        if stated is None or (value is not None and stated != value):
            continue
        for other in others:
            if _value(above, other) is None:
                below = _without(below, other.split("."))
    below = _without_others(below, above, "model", _is_of_any_network)
    inside = f"model.{HOST}"
    while _at(below, inside) is not None and _at(above, inside) is not None:
        below = _without_others(below, above, inside, lambda key, _: key == "name")
        inside += f".{HOST}"
    return _without_others(below, above, "data", lambda key, _: key in OF_ANY_DATA_SET, shared="root")


def _without_others(
    below: Node, above: Node, section: str, is_of_any: Callable[[str, Node], bool], shared: str = ""
) -> Node:
    """Leave out the keys of a section that were written for another name than the one that `above` gives.

    A layer that gives no name wrote its keys for whichever comes: they stay. The key `shared` stays too, but is told.
    """
    earlier, name = _value(below, f"{section}.name"), _value(above, f"{section}.name")
    keys, own = _at(below, section), _at(above, section)
    if earlier is None or name is None or earlier == name or keys is None or own is None:
        return below
    foreign = [key for key, node in keys.value.items() if not is_of_any(key, node)]
    for key in foreign:
        below = _without(below, [*section.split("."), key])
    left_out = [key for key in foreign if own.child(key) is None and keys.value[key].plain() not in (None, [], {})]
    kept = [shared] if own.child(shared) is None and _is_in_file(keys.child(shared)) else []
    told = [
        f"{done} what was written for {earlier}: {', '.join(_told(key, keys.value[key]) for key in those)}"
        for done, those in (("left out", left_out), ("kept", kept))
        if those
    ]
    if told:
        LOGGER.warning("%s.name is %s: %s", section, name, "; ".join(told))
    return below


def _is_of_any_network(key: str, node: Node) -> bool:
    """Tell whether a key stays; "imagenet" and "auto" mean those of whatever encoder it is, a file is of one."""
    return key in OF_ANY_NETWORK or (key == "encoder_weights" and node.value in (None, "imagenet", "auto"))


def _is_in_file(node: Node | None) -> bool:
    """Tell whether somebody wrote a value into a recipe file; a dict may come from a command that guesses."""
    return node is not None and node.value is not None and node.place.line is not None


def _told(key: str, node: Node) -> str:
    line = f":{node.place.line}" if node.place.line else ""
    return f"{key} = {show(node.plain())} ({node.place.file}{line})"


def _value(tree: Node, key: str) -> Any:
    """Return the single value at a dotted key, or None where there is none."""
    node = _at(tree, key)
    return None if node is None or isinstance(node.value, dict | list) else node.value


def _at(tree: Node, key: str) -> Node | None:
    """Return what stands at a dotted key."""
    node: Node | None = tree
    for part in key.split("."):
        node = None if node is None else node.child(part)
    return node


def _without(tree: Node, path: list[str]) -> Node:
    child = tree.child(path[0])
    if child is None or not isinstance(tree.value, dict):
        return tree
    kept = {key: node for key, node in tree.value.items() if key != path[0]}
    if len(path) > 1:
        kept = {**tree.value, path[0]: _without(child, path[1:])}
    return Node(value=kept, place=tree.place)
