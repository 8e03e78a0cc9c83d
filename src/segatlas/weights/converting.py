"""Convert weights that other libraries wrote to a model folder of ours, and back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from segatlas.errors import WeightsError
from segatlas.weights.importers import importers
from segatlas.weights.importers.foreign import ForeignWeights
from segatlas.weights.importers.importer import Importer
from segatlas.weights.importers.renames import to_ours, to_theirs

LOGGER = logging.getLogger("segatlas")


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """An importer that fits a file: the fields of the config that it read there, and what it took by default."""

    importer: Importer
    fields: Mapping[str, Any]
    notes: tuple[str, ...]


def recognise(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any], *, arch: str | None = None
) -> list[Recognised]:
    """Return every importer whose fingerprint fits the tensors."""
    found = []
    for importer in importers(architecture=arch):
        file = ForeignWeights(tensors=tensors, settings=settings)
        fields = importer.recognise(file)
        if fields is not None:
            found.append(Recognised(importer=importer, fields=fields, notes=tuple(file.notes)))
    return found


def rename_to_ours(importer: Importer, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under our names, in our layout. Names without a rename stay, for `require_fit` to report."""
    renames, changes = importer.renames(config), importer.changes(config)
    ours: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if any(name == start or name.startswith(f"{start}.") for start in importer.dropped):
            continue
        new = to_ours(name, renames) or name
        ours[new] = changes[new][0](tensor) if new in changes else tensor
    return ours


def rename_to_theirs(importer: Importer, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our tensors under their names, in their layout. WeightsError where the table lacks a name."""
    renames, changes = importer.renames(config), importer.changes(config)
    theirs: dict[str, Tensor] = dict(importer.constants(config))
    for name, tensor in tensors.items():
        new = to_theirs(name, renames)
        if new is None:
            raise WeightsError(f"{name}: {importer.source} has no such tensor in a {importer.architecture}")
        theirs[new] = changes[name][1](tensor) if name in changes else tensor
    return theirs
