"""The tensors of one network under another library's names and layout: the table of an importer, read either way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from segatlas.conversion.importers.importer import Importer
from segatlas.conversion.importers.renames import to_ours, to_theirs
from segatlas.conversion.importers.stacks import stack_to_ours, stack_to_theirs
from segatlas.errors import WeightsError


def rename_to_ours(importer: Importer, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under our names, in our layout. Names without a rename stay, for `require_fit` to report."""
    renames, changes = importer.renames(config), importer.changes(config)
    constants = importer.constants(config)
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if not _begins(name, importer.dropped) and name not in constants
    }
    stacked, others = stack_to_ours(kept, importer.stacks(config))
    ours = {to_ours(name, renames) or name: tensor for name, tensor in others.items()} | stacked
    return {name: changes[name][0](tensor) if name in changes else tensor for name, tensor in ours.items()}


def rename_to_theirs(importer: Importer, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return our tensors under their names, in their layout. WeightsError where the table lacks a name."""
    renames, changes = importer.renames(config), importer.changes(config)
    laid_out = {name: changes[name][1](tensor) if name in changes else tensor for name, tensor in tensors.items()}
    stacked, others = stack_to_theirs(laid_out, importer.stacks(config))
    theirs: dict[str, Tensor] = dict(importer.constants(config))
    for name, tensor in others.items():
        new = to_theirs(name, renames)
        if new is None:
            raise WeightsError(f"{name}: {importer.source} has no such tensor in a {importer.architecture}")
        theirs[new] = tensor
    return theirs | stacked


def _begins(name: str, beginnings: tuple[str, ...]) -> bool:
    return any(name == start or name.startswith(f"{start}.") for start in beginnings)


def with_counters(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors, and batch norm's counters where a file has none at all.

    Files written before torch 0.4.1 have no `num_batches_tracked`; torch itself takes 0 for it, too.
    """
    whole = dict(tensors)
    if not any(name.endswith("num_batches_tracked") for name in whole):
        means = [name for name in whole if name.endswith(".running_mean")]
        whole |= {name.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for name in means}
    return whole
