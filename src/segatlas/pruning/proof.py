"""Whether channels were removed rightly: the smaller network must be the whole one that no longer reads them.

A channel that nobody reads has no effect. So the whole network, with zeros in place of every weight that reads a removed
channel, has to give the numbers of the smaller network, in float64 to rounding: wherever a channel was taken from the
wrong place, or is used in a way that nobody followed, the two differ.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from segatlas.pruning.groups import ChannelGroup, repeated
from segatlas.pruning.passes import all_maps
from segatlas.structures import Inputs

MOST_DIFFERENCE = 1e-9
"""Of the largest value of a map, in float64."""

Choice = Mapping[str, Sequence[int]]
"""Root of a group -> which of its choices are removed."""


@torch.no_grad()
def blinded(net: nn.Module, groups: Sequence[ChannelGroup], choice: Choice) -> nn.Module:
    """Return a copy that has zeros for each weight that reads a removed channel."""
    whole = copy.deepcopy(net)
    for group in groups:
        removed = repeated(group, choice.get(group.root, ()))
        for member in group.members:
            rows = [row for channel in removed for row in member.channels[channel]]
            if rows and member.side == "reads":
                _blind(whole.get_submodule(member.layer), rows)
    return whole


def _blind(module: nn.Module, rows: list[int]) -> None:
    """Set the weights of a layer that read these channels to zero."""
    weight = module.get_parameter("weight")
    if isinstance(module, nn.ConvTranspose2d):
        weight[rows] = 0
        return
    width = weight.shape[1]  # of what a group of channels reads
    written = weight.shape[0] // int(getattr(module, "groups", 1))
    for row in rows:
        part, inside = divmod(row, width)
        weight[part * written : (part + 1) * written, inside] = 0


@torch.no_grad()
def difference(net: nn.Module, smaller: nn.Module, inputs: Tensor | Inputs) -> float:
    """Return by how much two networks differ at most, relative to the largest value of a map; infinite where in size."""
    expected, found = all_maps(net, inputs), all_maps(smaller, inputs)
    if expected.keys() != found.keys() or any(found[name].shape != x.shape for name, x in expected.items()):
        return float("inf")
    ratios = [(found[name] - x).abs().max() / x.abs().max().clamp(min=1e-30) for name, x in expected.items() if x.numel()]
    worst = torch.stack(ratios).max() if ratios else torch.zeros(())
    return float(worst) if worst.isfinite() else float("inf")
