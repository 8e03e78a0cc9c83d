"""YAML as a tree that remembers, for every key, the file and line it came from.

Scalars follow YAML 1.2's core rules instead of PyYAML's 1.1 ones, because recipes contain `lr: 1e-3` (1.1: a text),
`on: logits` (1.1: the key `true`) and names like `no` or `001` that must stay texts. Reading and writing share the
same table, so what `write` puts out, `parse` reads back unchanged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import yaml

from segatlas.config.plain import text_fault
from segatlas.errors import ConfigError, Problem
from segatlas.printable import printable_lines

MAX_DEPTH = 20
MAX_NODES = 20_000
MAX_DIGITS = 100
_TOO_LARGE = "nested too deeply or too large"

_NULL, _BOOL = "tag:yaml.org,2002:null", "tag:yaml.org,2002:bool"
_INT, _FLOAT, _TEXT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:str"
_SCALARS = (
    (_NULL, r"^(?:~|null|Null|NULL|)$", [*"~nN", ""]),
    (_BOOL, r"^(?:true|True|TRUE|false|False|FALSE)$", [*"tTfF"]),
    (_INT, r"^[-+]?(?:0|[1-9][0-9]*)$", [*"-+0123456789"]),
    (_FLOAT, r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$", [*"-+.0123456789"]),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[Any, Any] = {}


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[Any, Any] = {}

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), _first)
    _Dumper.add_implicit_resolver(_tag, re.compile(_pattern), _first)


def _write_list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    short = not any(isinstance(item, dict) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=short)


_Dumper.add_representer(list, _write_list)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a key was written. `file` is the name to print, "override" for a key=value word; lines count from 1."""

    file: str
    line: int | None = None


@dataclass(frozen=True, kw_only=True)
class Node:
    """A value and where its key stands. value: None, bool, int, float, str, dict[str, Node] or list[Node]."""

    value: Any
    place: Place

    def child(self, key: str) -> Node | None:
        """Return the entry `key` of a mapping, or the item number `key` of a list; None where there is none."""
        inner: Node | None = None
        if isinstance(self.value, dict):
            inner = self.value.get(key)
        elif isinstance(self.value, list) and key.isdigit() and int(key) < len(self.value):
            inner = self.value[int(key)]
        return inner

    def files(self) -> set[str]:
        """Return the files that this value and all below it were written in."""
        below = self.value.values() if isinstance(self.value, dict) else self.value
        inner = [node.files() for node in below] if isinstance(self.value, dict | list) else []
        return {self.place.file}.union(*inner)

    def plain(self) -> Any:
        """Return the value as plain Python types."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def from_plain(value: Any, place: Place) -> Node:
    """Build a tree from plain Python values, all at the same place. Tuples become lists, keys and paths texts.

    Raises:
        ConfigError: values that no recipe can hold.
    """
    return _from_plain(value, place, ())


def _from_plain(value: Any, place: Place, path: tuple[str, ...]) -> Node:
    if len(path) > MAX_DEPTH:
        raise ConfigError(place.file, [Problem(key=".".join(path[:4]), file=place.file, message=_TOO_LARGE)])
    if isinstance(value, dict):
        named = {str(key): item for key, item in value.items()}
        return Node(value={k: _from_plain(item, place, (*path, k)) for k, item in named.items()}, place=place)
    if isinstance(value, list | tuple):
        items = [_from_plain(item, place, (*path, str(i))) for i, item in enumerate(value)]
        return Node(value=items, place=place)
    if isinstance(value, PurePath):
        value = str(value)
    fault = _number_fault(value) if isinstance(value, int) else ""
    if value is not None and not isinstance(value, bool | int | float | str):
        fault = f"a {type(value).__name__}, expected a number, a text, true, false, null, a list or a group of keys"
    if fault:
        raise ConfigError(place.file, [Problem(key=".".join(path) or "(top)", file=place.file, message=fault)])
    return Node(value=value, place=place)


def _number_fault(number: int) -> str:
    return f"a whole number of more than {MAX_DIGITS} digits" if number.bit_length() > 3 * MAX_DIGITS else ""


def merge(below: Node, above: Node) -> Node:
    """Lay one tree over another: mappings merge key by key, lists and single values are replaced."""
    if not (isinstance(below.value, dict) and isinstance(above.value, dict)):
        return above
    merged = dict(below.value)
    for key, node in above.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return Node(value=merged, place=above.place)


def parse(text: str, file: str) -> tuple[Node | None, list[Problem]]:
    """Read YAML text.

    Returns the tree (None for an empty text) and the faults that do not stop the reading: duplicate keys, tags, keys
    that are not text. Raises ConfigError where the text is not YAML at all.
    """
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(file, [_syntax_problem(error, text, file)]) from error
    except RecursionError:
        raise ConfigError(file, [Problem(key="(top)", line=1, file=file, message=_TOO_LARGE)]) from None
    except (ValueError, OverflowError) as error:  # an escape that names no character
        problem = Problem(key="(syntax)", line=1, file=file, message=f"not valid YAML: {error}")
        raise ConfigError(file, [problem]) from error
    if root is None:
        return None, []
    reader = _Reader(file)
    return reader.read(root, Place(file=file, line=1), path=()), reader.problems


def write(value: Any) -> str:
    """Write plain Python values as YAML: keys in the given order, lists of single values on one line."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    if printable_lines(text) != text:  # marks that turn the direction of writing, and the like: as escapes
        text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=120)
    return text


class _Reader:
    """Turns PyYAML's nodes into ours."""

    def __init__(self, file: str):
        self.file = file
        self.problems: list[Problem] = []
        self.count = 0

    def read(self, node: yaml.Node, place: Place, path: tuple[str, ...]) -> Node:
        self.count += 1
        if len(path) > MAX_DEPTH or self.count > MAX_NODES:  # an alias inside its own anchor, or a bomb of them
            raise ConfigError(self.file, [self._problem(path[:4], place.line, _TOO_LARGE)])
        if isinstance(node, yaml.MappingNode):
            return Node(value=self._mapping(node, path), place=place)
        if isinstance(node, yaml.SequenceNode):
            items = [self.read(n, self._place(n), (*path, str(i))) for i, n in enumerate(node.value)]
            return Node(value=items, place=place)
        return Node(value=self._scalar(node.tag, node.value, place, path), place=place)

    def _mapping(self, node: yaml.MappingNode, path: tuple[str, ...]) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            place = self._place(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(self._problem(path, place.line, "a key must be a single word"))
                continue
            key = key_node.value
            if fault := text_fault(key):
                self.problems.append(self._problem(path, place.line, f"a key holds {fault}"))
                continue
            if "." in key:
                message = (
                    f"a key holds no dot; groups are nested: `{key.replace('.', ': {')}: ...{'}' * key.count('.')}`"
                )
                self.problems.append(self._problem((*path, key), place.line, message))
                continue
            if key in entries:
                message = f"key given twice (first on line {entries[key].place.line})"
                self.problems.append(self._problem((*path, key), place.line, message))
                continue
            entries[key] = self.read(value_node, place, (*path, key))
        return entries

    def _scalar(self, tag: str, text: str, place: Place, path: tuple[str, ...]) -> Any:
        fault = text_fault(text)
        if tag in (_INT, _FLOAT) and len(text) > MAX_DIGITS:
            fault = f"a number of more than {MAX_DIGITS} digits"
        if fault:
            self.problems.append(self._problem(path, place.line, fault))
            return None
        if tag == _TEXT:
            return text
        try:
            if tag == _NULL:
                return None
            if tag == _BOOL:
                return {"true": True, "false": False}[text.lower()]
            if tag == _INT:
                return int(text)
            if tag == _FLOAT:
                return float(text)
        except (KeyError, ValueError):  # an explicit tag on something else, as in `!!int abc`
            if text.lstrip("+-").isdigit():  # Python reads whole numbers of at most 4300 digits
                self.problems.append(self._problem(path, place.line, f"a number of {len(text)} digits is too long"))
                return 0
        self.problems.append(self._problem(path, place.line, f"recipes use no YAML tags, found {tag!r}"))
        return text

    def _place(self, node: yaml.Node) -> Place:
        return Place(file=self.file, line=node.start_mark.line + 1)

    def _problem(self, path: tuple[str, ...], line: int | None, message: str) -> Problem:
        return Problem(key=".".join(path) or "(top)", line=line, file=self.file, message=message)


def _syntax_problem(error: yaml.YAMLError, text: str, file: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    if mark is None:  # ReaderError: a character that YAML does not allow
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position) + 1
        return Problem(key="(syntax)", line=line, file=file, message="a character that YAML does not allow")
    line = mark.line + 1
    lines = text.splitlines()
    indent = lines[mark.line] if mark.line < len(lines) else ""
    problem = str(getattr(error, "problem", ""))
    if "\\t" in problem or "\t" in indent[: len(indent) - len(indent.lstrip())]:
        return Problem(key="(syntax)", line=line, file=file, message="a tab; YAML is indented with spaces only")
    words = ", ".join(part for part in (getattr(error, "context", None), problem) if part)
    return Problem(key="(syntax)", line=line, file=file, message=f"not valid YAML: {words}")
