"""Recipes: the schema, how they are read, and what is said about a faulty one. Holds no torch.

The schema is built when a name of it is first asked for: predicting needs only the room's messages.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segatlas.config.loading import json_schema, recipes, to_yaml
    from segatlas.config.schema import Config

_HOME = {"Config": "schema", "json_schema": "loading", "recipes": "loading", "to_yaml": "loading"}

__all__ = ["Config", "json_schema", "recipes", "to_yaml"]


def __getattr__(name: str) -> Any:
    """Import the file that holds a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
