"""MMSegmentation's own configuration, read as data: from a checkpoint's `meta`, or from a sidecar config file.

Nothing is executed: of the Python text only assignments of literals, of names assigned before and of `dict(...)` calls
are read. A config file may build on others (`_base_`); those are read where they exist.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segatlas.errors import WeightsError
from segatlas.printable import printable

_UNKNOWN = object()

_DEPTH = 8
"""Files that build on files at most."""


def read_settings(text: str, inherited: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the plain assignments of a config's text; what is not a literal is left out.

    Args:
        text: Python.
        inherited: assignments of the files that this one builds on, which it overrides key by key.

    Raises:
        SyntaxError: not Python.
    """
    base = dict(inherited or {})
    found: dict[str, Any] = {}
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            value = _literal(statement.value, {**base, **found, "_base_": base})
            if value is not _UNKNOWN:
                found[statement.targets[0].id] = value
    return merged(base, found)


def read_settings_file(path: Path, depth: int = _DEPTH) -> dict[str, Any]:
    """Return the assignments of a config file and of the files that it builds on, as far as these exist.

    Raises:
        WeightsError: no such file, not a text, or not Python.
    """
    try:
        text = path.read_text(encoding="utf-8")
        own = read_settings(text)
        bases = own.get("_base_", [])
        inherited: dict[str, Any] = {}
        for base in [bases] if isinstance(bases, str) else bases:
            place = path.parent / str(base)
            if depth > 0 and place.is_file():
                inherited = merged(inherited, read_settings_file(place, depth - 1))
        return read_settings(text, inherited) if inherited else own
    except OSError as error:
        raise WeightsError(f"{printable(path)}: cannot be read ({error.strerror})") from error
    except (SyntaxError, ValueError, RecursionError) as error:
        raise WeightsError(f"{printable(path)}: not a config file of MMSegmentation ({error})") from error


def merged(base: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `above` over `base`: dictionaries key by key (unless they hold `_delete_`), everything else replaced."""
    out = dict(base)
    for key, value in above.items():
        below = out.get(key)
        if isinstance(value, Mapping):
            keep = isinstance(below, Mapping) and not value.get("_delete_")
            fresh = {name: item for name, item in value.items() if name != "_delete_"}
            out[key] = merged(below, fresh) if keep and isinstance(below, Mapping) else fresh
        else:
            out[key] = value
    return out


def _literal(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Return the value of an expression of literals, `dict(...)` calls and names assigned before, else _UNKNOWN."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return names.get(node.id, _UNKNOWN)
    if isinstance(node, ast.Attribute):  # _base_.model.decode_head
        holder = _literal(node.value, names)
        return holder.get(node.attr, _UNKNOWN) if isinstance(holder, Mapping) else _UNKNOWN
    if isinstance(node, ast.Set) and len(node.elts) == 1:  # {{_base_.model}}
        return _literal(node.elts[0], names)
    if isinstance(node, ast.List | ast.Tuple):
        items = [_literal(item, names) for item in node.elts]
        return [item for item in items if item is not _UNKNOWN]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand, names)
        return -value if isinstance(value, int | float) else _UNKNOWN
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        words = {word.arg: _literal(word.value, names) for word in node.keywords if word.arg}
        return {key: value for key, value in words.items() if value is not _UNKNOWN}
    if isinstance(node, ast.Dict):
        keys = [None if key is None else _literal(key, names) for key in node.keys]
        values = [_literal(value, names) for value in node.values]
        pairs = {k: v for k, v in zip(keys, values, strict=True) if isinstance(k, str | int)}
        return {key: value for key, value in pairs.items() if value is not _UNKNOWN}
    return _UNKNOWN
