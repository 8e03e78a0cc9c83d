"""Passes through a network that show all that it computes, and that two networks can be compared by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from segatlas.models import find_entry
from segatlas.models.host import aux_names_of
from segatlas.structures import Inputs, SemanticLogits, further_maps, maps_of


def all_maps(net: nn.Module, inputs: Tensor | Inputs) -> dict[str, Tensor]:
    """Return what a network gives when it predicts and, where it can be had without the truth, while it trains.

    Both are what follows from the weights alone: norms keep to their averages, nothing is dropped, and points are drawn
    as a seed says. The network is left in eval mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net.eval()
        maps = dict(maps_of(net(inputs)))
        entry = find_entry(str(net.architecture))[0]
        gives_no_more = entry.output == SemanticLogits.__name__ and not aux_names_of(net)
        if entry.needs.targets_in_forward or gives_no_more:
            return maps
        with training_outputs(net):
            torch.manual_seed(0)
            output = net(inputs)
        maps |= {f"training.{name}": x for name, x in (maps_of(output) | further_maps(output)).items()}
    return {name: x for name, x in maps.items() if x.is_floating_point()}


@contextmanager
def training_outputs(net: nn.Module) -> Iterator[None]:
    """Let a network give what it gives for losses, while its norms keep to their averages and nothing is dropped."""
    for module in net.modules():
        module.training = not _is_random_or_averaging(module)
    try:
        yield
    finally:
        net.eval()


def _is_random_or_averaging(module: nn.Module) -> bool:
    """Tell whether a module does otherwise to its input while training, rather than giving more."""
    name = type(module).__name__.lower()
    has_statistics = getattr(module, "running_mean", None) is not None
    return has_statistics or "drop" in name or not list(module.children())
