"""MMSegmentation's own configuration, read as data: from a checkpoint's `meta`, or from a config file beside it.

Nothing is executed: of the Python text only assignments of literals and of `dict(...)` calls are read.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

_UNKNOWN = object()


def read_settings(text: str) -> dict[str, Any]:
    """Return the plain assignments of a config's text; what is not a literal is left out.

    Raises:
        SyntaxError: not Python.
    """
    found: dict[str, Any] = {}
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            value = _literal(statement.value, found)
            if value is not _UNKNOWN:
                found[statement.targets[0].id] = value
    return found


def _literal(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Return the value of an expression of literals, `dict(...)` calls and names assigned before, else _UNKNOWN."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return names.get(node.id, _UNKNOWN)
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
