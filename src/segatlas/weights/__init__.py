"""Weights: the card, safe reading, building, saving, loading, fine-tuning. Importing this loads no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segatlas.weights.building import create_model
    from segatlas.weights.card import Card
    from segatlas.weights.converting import convert
    from segatlas.weights.listing import list_models
    from segatlas.weights.reading import read_state_dict
    from segatlas.weights.saving import load_pretrained, save_pretrained
    from segatlas.weights.starting import start_from

_HOME = {
    "Card": "card",
    "convert": "converting",
    "create_model": "building",
    "list_models": "listing",
    "load_pretrained": "saving",
    "read_state_dict": "reading",
    "save_pretrained": "saving",
    "start_from": "starting",
}

__all__ = [
    "Card",
    "convert",
    "create_model",
    "list_models",
    "load_pretrained",
    "read_state_dict",
    "save_pretrained",
    "start_from",
]


def __getattr__(name: str) -> Any:
    """Import the file that holds a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
