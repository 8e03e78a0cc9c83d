"""Whether channels were removed rightly: the smaller network must be the whole one that no longer reads them.

A channel that nobody reads has no effect. So the whole network, with zeros for each weight that reads a removed
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

LEAST_EFFECT = 1e-5
"""What removing channels must change, relative likewise: else nothing is seen of where they were taken from."""

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
def redrawn(net: nn.Module) -> nn.Module:
    """Return a copy with other weights, by which every channel has an effect on what the network gives.

    Whether channels are removed rightly does not depend on the weights. It is only seen where they matter, and in the
    network itself some may not: those of a norm that has learned a scale of zero, all of an untrained one.
    """
    copied = copy.deepcopy(net)
    generator = torch.Generator().manual_seed(0)

    def normal(x: Tensor, std: float, mean: float = 0.0) -> None:
        x.copy_(torch.randn(x.shape, generator=generator, dtype=torch.float64) * std + mean)

    for module in copied.modules():
        for name, parameter in module.named_parameters(recurse=False):
            is_scale = name == "weight" and parameter.ndim == 1
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            std = 0.1 if name == "bias" else 0.3 if is_scale else (2 / fan_in) ** 0.5
            normal(parameter, std, mean=float(is_scale))
        for name, buffer in module.named_buffers(recurse=False):
            if name == "running_mean":
                normal(buffer, 0.1)
            elif name == "running_var":
                buffer.fill_(1.0)
    return copied


@torch.no_grad()
def maps(net: nn.Module, inputs: Tensor | Inputs) -> dict[str, Tensor]:
    """Return all that a network gives, without a graph."""
    return all_maps(net, inputs)


def difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> float:
    """Return by how much maps differ at most, relative to the largest value of each; infinite where in size."""
    if expected.keys() != found.keys() or any(found[name].shape != x.shape for name, x in expected.items()):
        return float("inf")
    pairs = [(x, found[name]) for name, x in expected.items() if x.numel()]
    ratios = [(y - x).abs().max() / x.abs().max().clamp(min=1e-30) for x, y in pairs]
    worst = torch.stack(ratios).max() if ratios else torch.zeros(())
    return float(worst) if worst.isfinite() else float("inf")
