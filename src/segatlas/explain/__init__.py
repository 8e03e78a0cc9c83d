"""Images and numbers that explain a model. Every function is for notebooks, too; `segatlas explain` calls the same.

The names below are imported at first use, so that `import segatlas.explain` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segatlas.explain.layers import find_layer, layer_names

_PUBLIC = {
    "find_layer": "segatlas.explain.layers",
    "layer_names": "segatlas.explain.layers",
}
"""Public name -> the file that it is in."""

__all__ = ["find_layer", "layer_names"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'segatlas.explain' has no attribute '{name}'")
    value = getattr(import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
