"""Recipes: the schema, how they are read, and what is said about a faulty one. Holds no torch.

The schema is built when a name of it is first asked for: predicting needs only the room's messages.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segatlas.config.loading import Config, json_schema, recipes, to_yaml

__all__ = ["Config", "json_schema", "recipes", "to_yaml"]


def __getattr__(name: str) -> Any:
    """Import the file that holds the public names when one is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.loading"), name)
