"""The two spellings of a network's encoder, and the way from the flat one to the nested one.

    encoder: resnet50                    encoder:
    output_stride: 8                       name: resnet50
    encoder_options:                       output_stride: 8
      multi_grid: [1, 2, 4]                multi_grid: [1, 2, 4]

Recipes, their `key=value` words, cards, arguments of `create_model` and the variants of model files may use either, or
both where they do not contradict each other. All are brought to the nested one here and nowhere else: each layer by
itself, before layers meet, so that a higher layer's `output_stride` overrides a lower layer's `encoder: {...}`. The
same holds of a network inside another one, `host:`, which may be given by its name alone, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from segatlas.config.messages import show
from segatlas.config.yaml_tree import Node, Place
from segatlas.errors import Problem

ENCODER, HOST, NAME = "encoder", "host", "name"
FLAT: dict[str, tuple[str, ...]] = {
    "output_stride": (ENCODER, "output_stride"),
    "encoder_options": (ENCODER,),
    "drop_path": (ENCODER, "drop_path"),
}
"""Flat key -> where its value stands in the nested spelling; a group there is laid over the encoder's keys."""


def nested_path(path: Sequence[str]) -> tuple[str, ...]:
    """Return the place of a key among a network's keys: of `output_stride`, that is `encoder.output_stride`."""
    if path[:1] == (HOST,):
        return (HOST, *nested_path(path[1:]))
    return (*FLAT.get(path[0], path[:1]), *path[1:]) if path else ()


def nested_value(node: Node, path: Sequence[str] = ()) -> Node:
    """Return what stands at `path` among a network's keys, () being all of them, in the nested spelling.

    Of what contradicts itself the nested value stays, see `contradictions`.
    """
    if tuple(path) in ((ENCODER,), (HOST,)) and isinstance(node.value, str):
        return Node(value={NAME: node}, place=node.place)
    if path[:1] == (HOST,):
        return nested_value(node, path[1:])
    if path or not isinstance(node.value, dict):
        return node
    fields = {key: nested_value(child, (key,)) for key, child in node.value.items() if key not in FLAT}
    flat = {key: value for _, key, value in _flat_values(node)}
    group = fields.get(ENCODER)
    own = {} if group is None or group.value is None else group.value
    if flat and isinstance(own, dict):
        place = (group or next(iter(flat.values()))).place
        fields[ENCODER] = Node(
            value={**own, **{key: value for key, value in flat.items() if key not in own}}, place=place
        )
    return Node(value=fields, place=node.place)


def contradictions(node: Node) -> list[Problem]:
    """Return a problem for each flat key of a network that says something else than the nested spelling beside it."""
    group, problems = node.child(ENCODER), []
    for written, key, given in _flat_values(node):
        other = None if group is None else group.child(key)
        if other is not None and _listed(other.plain()) != _listed(given.plain()):
            line = "" if other.place.line is None else f" (line {other.place.line})"
            message = f"contradicts {ENCODER}.{key} = {show(other.plain())}{line}: leave one of them out"
            found, place = show(given.plain()), given.place
            problems.append(Problem(key=written, got=found, message=message, file=place.file, line=place.line))
    inside = [] if (host := node.child(HOST)) is None else contradictions(host)
    return [*problems, *(replace(problem, key=f"{HOST}.{problem.key}") for problem in inside)]


def nested_fields(fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Return a network's fields, as plain values, in the nested spelling, and what contradicts itself in them."""
    ours = {key: _noded(fields[key]) for key in (ENCODER, *FLAT) if key in fields}
    node = Node(value=ours, place=_NOWHERE)
    problems = [Problem(key=problem.key, got=problem.got, message=problem.message) for problem in contradictions(node)]
    return {key: value for key, value in fields.items() if key not in ours} | nested_value(node).plain(), problems


def dotted_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network's fields, in either spelling, by dotted key: `encoder.KEY`, and of a wrapper `host.KEY`."""
    dotted: dict[str, Any] = {}
    for key, value in nested_fields(fields)[0].items():
        group = dotted_fields(value) if key == HOST and isinstance(value, Mapping) else value
        inside = isinstance(group, Mapping) and key in (ENCODER, HOST)
        dotted |= {f"{key}.{inner}": item for inner, item in group.items()} if inside else {key: value}
    return dotted


def encoder_name(fields: Mapping[str, Any]) -> str:
    """Return the name of the encoder among a network's fields, in either spelling; "" where there is none.

    Of a wrapper it is that of the network inside.
    """
    while isinstance(host := fields.get(HOST), Mapping):
        fields = host
    group = nested_fields(fields)[0].get(ENCODER)
    return str(group.get(NAME) or "") if isinstance(group, Mapping) else ""


def _flat_values(node: Node) -> Iterator[tuple[str, str, Node]]:
    """Yield (key as written, key of the encoder's group, value) of what is spelt flat.

    Where `encoder_options` is no group of keys, it is taken for an option of that name, which no encoder has.
    """
    for flat, (*_, key) in FLAT.items():
        child = node.child(flat)
        if child is None or (child.value is None and key != "output_stride"):
            continue  # of all but the stride, null says nothing
        if key != ENCODER:
            yield flat, key, child
        elif isinstance(child.value, dict):
            yield from ((f"{flat}.{option}", option, value) for option, value in child.value.items())
        else:
            yield flat, flat, child


_NOWHERE = Place(file="")


def _noded(value: Any) -> Node:
    """Return plain values as a tree; leaves are what they are, tuples among them."""
    if isinstance(value, Mapping):
        return Node(value={str(key): _noded(item) for key, item in value.items()}, place=_NOWHERE)
    if isinstance(value, list):
        return Node(value=[_noded(item) for item in value], place=_NOWHERE)
    return Node(value=value, place=_NOWHERE)


def _listed(value: Any) -> Any:
    """Return a value with its tuples as lists: a recipe has no others."""
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value
