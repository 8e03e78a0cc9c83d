"""Turns pydantic's errors into plain words: which key, what was found, what was expected, the nearest known name.

Everything is read from the JSON Schema, so that recipes and the architectures' own configs are explained by one
function and the table of `segatlas config schema` uses the very same words.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from segatlas.errors import Problem

Schema = Mapping[str, Any]
_KINDS = {
    "integer": ("a whole number", "whole numbers"),
    "number": ("a number", "numbers"),
    "string": ("text", "texts"),
    "boolean": ("true or false", "true/false values"),
    "array": ("a list", "lists"),
    "object": ("a group of keys", "groups of keys"),
}
_BOUNDS = (
    ("minimum", "at least"),
    ("exclusiveMinimum", "above"),
    ("maximum", "at most"),
    ("exclusiveMaximum", "below"),
)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` most likely means, or None."""
    by_lower = {other.lower(): other for other in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return "unknown WHAT - did you mean 'x'?", or the list of what is known where nothing is near."""
    known = list(known)
    guess = nearest(name, known)
    if guess is not None:
        return f"unknown {what} - did you mean '{guess}'?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"unknown {what}; known here: {shown}" if known else f"unknown {what}"


def show(value: Any) -> str:
    """Return a value as it would stand in a recipe, on one short line."""
    return shorten(json.dumps(value, ensure_ascii=False, default=str))


def shorten(text: str) -> str:
    """Return a text of at most 40 characters; the end of a longer one is left out."""
    return text if len(text) <= 40 else text[:37] + "..."


class SchemaWords:
    """Looks up places in a JSON Schema and says in words what they expect."""

    def __init__(self, root: Schema):
        self.root = root

    def at(self, path: Sequence[str], data: Any) -> Schema | None:
        """Return the schema of the key at `path`, or None. `data` decides between the members of a union."""
        node = self.root
        for key in path:
            child = self._child(self._member(node, data), key)
            if child is None:
                return None
            node, data = child, _item(data, key)
        return self.resolve(node)

    def group(self, path: Sequence[str], data: Any) -> Schema:
        """Return the schema of the group at `path`: the member of a union that fits the data; empty if none does."""
        return self._member(self.at(path, data), _walk(data, path))

    def keys(self, path: Sequence[str], data: Any) -> list[str]:
        """Return the keys that may stand under `path`."""
        return list(self.group(path, data).get("properties", {}))

    def leaves(self, node: Schema | None = None, prefix: str = "") -> Iterator[tuple[str, Schema]]:
        """Yield (dotted key, schema) of every key, groups expanded. A group that may be null comes before its keys."""
        for key, child in self.resolve(node or self.root).get("properties", {}).items():
            group = self._member(self.resolve(child), {})
            if group.get("properties"):
                if "anyOf" in child:
                    yield prefix + key, self.resolve(child)
                yield from self.leaves(group, f"{prefix}{key}.")
            else:
                yield prefix + key, self.resolve(child)

    def expected(self, node: Schema) -> str:
        """Return what a key expects: "a whole number, at least 1"."""
        node = self.resolve(node)
        if "discriminator" in node:
            return "a name or a group of keys with `name`, one of: " + ", ".join(node["discriminator"]["mapping"])
        if "anyOf" in node:
            members = [{**self.resolve(m), **_description(node)} for m in node["anyOf"] if m.get("type") != "null"]
            return " or ".join(self.expected(member) for member in members)
        if "enum" in node:
            return "one of: " + ", ".join(map(str, node["enum"]))
        if "const" in node:
            return repr(node["const"])
        if "pattern" in node and "description" in node:
            return str(node["description"]).split(";")[0]
        if node.get("type") == "array":
            return self._expected_list(node)
        if node.get("type") == "object" and "properties" not in node:
            return "a group of `key: value` lines"
        kind = _KINDS.get(node.get("type", ""))
        return ", ".join([kind[0], *_bounds(node)]) if kind else "another kind of value"

    def resolve(self, node: Schema) -> Schema:
        """Follow a reference; what stands beside it (description, default) stays."""
        while "$ref" in node:
            target = self.root["$defs"][node["$ref"].rsplit("/", 1)[-1]]
            node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
        return node

    def _expected_list(self, node: Schema) -> str:
        items = node.get("prefixItems") or [node.get("items", {})]
        item = self.resolve(items[0])
        if "pattern" in item:
            return f"a list of {self.expected({**item, **_description(node)})}"
        count = f"{len(items)} " if "prefixItems" in node else ""
        if "discriminator" in item:
            return "a list of names, or of groups of keys with `name`"
        if item.get("type") == "array":
            return f"a list of {count}{self._expected_list(item).replace('a list', 'lists', 1)}"
        plural = _KINDS.get(item.get("type", ""), ("", "values"))[1]
        bounds = " and ".join(_bounds(item))
        return f"a list of {count}{plural}" + (f", each {bounds}" if bounds else "")

    def _member(self, node: Schema | None, data: Any) -> Schema:
        """Return the member of a union that fits the data's shape."""
        node = self.resolve(node or {})
        if "discriminator" in node:
            name = data.get("name") if isinstance(data, Mapping) else None
            reference = node["discriminator"]["mapping"].get(name) if isinstance(name, str) else None
            return self.resolve({"$ref": reference}) if reference else {}
        members = [self.resolve(member) for member in node.get("anyOf", ())]
        wanted = "object" if isinstance(data, Mapping) else "array" if isinstance(data, list) else None
        for member in members:
            if member.get("type") == wanted:
                return {**member, **_description(node)}
        return node

    def _child(self, node: Schema, key: str) -> Schema | None:
        properties: Mapping[str, Schema] = node.get("properties", {})
        if key in properties:
            return properties[key]
        if key.isdigit() and node.get("type") == "array":
            items = node.get("prefixItems")
            item = node.get("items") if items is None else items[int(key)] if int(key) < len(items) else None
            return None if item is None else {**_description(node), **item}
        extra = node.get("additionalProperties")
        return extra if isinstance(extra, Mapping) else None


def explain(errors: Iterable[Mapping[str, Any]], data: Any, words: SchemaWords) -> list[Problem]:
    """Turn pydantic's errors about `data` into problems, one a key.

    A union reports each of its members: they become one problem, and a fault deep inside a value hides the complaint
    of the other members about the whole value.
    """
    found: dict[tuple[str, ...], str] = {}
    for error in errors:
        path, message = _explain_one(error, data, words)
        found.setdefault(path, message)
    deepest = [path for path in found if not any(len(o) > len(path) and o[: len(path)] == path for o in found)]
    values = [_walk(data, path) if path else _NONE for path in deepest]
    return [
        Problem(key=".".join(path), got="" if value is _NONE else show(value), message=found[path])
        for path, value in zip(deepest, values, strict=True)
    ]


def _explain_one(error: Mapping[str, Any], data: Any, words: SchemaWords) -> tuple[tuple[str, ...], str]:
    kind, location = error["type"], error["loc"]
    path = _path(location, data)
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return path, _unknown_key(path, data, words)
    if kind.startswith("missing") and isinstance(location[-1], str):
        return (*path, location[-1]), "this key is required"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _explain_tag(path, data, words)
    if kind == "value_error":
        return path, str(error["msg"]).removeprefix("Value error, ")
    schema = words.at(path, data)
    if location[-1] == "[key]" and schema is not None:
        names = words.group(path[:-1], data).get("propertyNames", {}).get("enum")
        return path, "expected as key one of: " + ", ".join(names) if names else "expected a whole number as key"
    if schema is None:
        return path, str(error["msg"])
    value = _walk(data, path)
    message = f"expected {words.expected(schema)}"
    if kind == "literal_error" and isinstance(value, str) and "enum" in schema:
        guess = nearest(value, map(str, schema["enum"]))
        message += f" - did you mean '{guess}'?" if guess else ""
    return path, message


def _explain_tag(path: tuple[str, ...], data: Any, words: SchemaWords) -> tuple[tuple[str, ...], str]:
    mapping = list((words.at(path, data) or {})["discriminator"]["mapping"])
    value = _walk(data, path)
    if isinstance(value, Mapping) and "name" in value:
        return (*path, "name"), unknown("name", str(value["name"]), mapping)
    return (*path, "name"), "this key is required, one of: " + ", ".join(mapping)


def _unknown_key(path: tuple[str, ...], data: Any, words: SchemaWords) -> str:
    return misplaced(path[-1], words.keys(path[:-1], data), words)


def misplaced(name: str, here: Iterable[str], words: SchemaWords) -> str:
    """Say what an unknown key may mean: one of those that may stand `here`, or one that belongs elsewhere."""
    here = list(here)
    if nearest(name, here) is None:
        elsewhere = [key for key, _ in words.leaves() if key.rsplit(".", 1)[-1] == name]
        if elsewhere:
            return f"unknown key here - did you mean '{elsewhere[0]}'?"
    return unknown("key", name, here)


_NONE = object()


def _item(data: Any, key: str) -> Any:
    if isinstance(data, Mapping):
        return data.get(key, _NONE)
    if isinstance(data, list) and key.isdigit() and int(key) < len(data):
        return data[int(key)]
    return _NONE


def _walk(data: Any, path: Sequence[str]) -> Any:
    for key in path:
        data = _item(data, key)
    return data


def _path(location: Sequence[str | int], data: Any) -> tuple[str, ...]:
    """Keep the parts of pydantic's location that are keys of the data; the others name members of a union."""
    path: list[str] = []
    for part in location:
        inner = _item(data, str(part))
        if inner is not _NONE:
            path.append(str(part))
            data = inner
    return tuple(path)


def _bounds(node: Schema) -> list[str]:
    return [f"{word} {node[key]}" for key, word in _BOUNDS if key in node]


def _description(node: Schema) -> dict[str, Any]:
    return {"description": node["description"]} if "description" in node else {}
