"""Training: recipes in, run folders out. Lightning is imported here and nowhere else, and only on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segatlas.training.checkpoints import Interrupted as Interrupted
    from segatlas.training.dry import dry_run as dry_run
    from segatlas.training.fit import train as train
    from segatlas.training.run import Run as Run

_HOMES = {
    "train": "segatlas.training.fit",
    "Run": "segatlas.training.run",
    "dry_run": "segatlas.training.dry",
    "Interrupted": "segatlas.training.checkpoints",
}
__all__ = ["Interrupted", "Run", "dry_run", "train"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
