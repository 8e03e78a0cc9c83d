"""Importers: weights that other libraries wrote, read as ours and written back.

One folder is one library, one file in it one architecture (or one backbone). The table holds no torch; `importers`
imports the files of a library when they are needed. Each of them ends with its record `IMPORTER`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segatlas.weights.importers.importer import Importer

SOURCES: dict[str, tuple[str, ...]] = {
    "mmseg": (
        "deeplabv3",
        "deeplabv3plus",
        "dnlnet",
        "fastfcn",
        "fcn",
        "gcnet",
        "isanet",
        "nonlocal_net",
        "ocrnet",
        "pointrend",
        "psanet",
        "pspnet",
        "semantic_fpn",
        "stdc",
        "upernet",
    ),
    "torchvision": ("deeplabv3", "fcn", "lraspp"),
    "smp": ("deeplabv3plus",),
}
"""Library -> the architectures of which its weights can be read: the file names in its folder."""


def importers(source: str | None = None, architecture: str | None = None) -> list[Importer]:
    """Return the importers, of one library or of all, and for one architecture or all."""
    return [
        import_module(f"{__name__}.{library}.{name}").IMPORTER
        for library, names in SOURCES.items()
        for name in names
        if source in (None, library) and architecture in (None, name)
    ]
