"""The layers of a network by name: those of torch's `named_modules`, such as "encoder.layer4.1.conv2"."""

from __future__ import annotations

import difflib

from torch import nn

from segatlas.errors import UsageError

MOST_NAMED = 5
"""Nearest names that a message offers."""


def layer_names(network: nn.Module) -> tuple[str, ...]:
    """Return the names of all layers of a network, in its own order; those that only hold others are among them."""
    return tuple(name for name, _ in network.named_modules() if name)


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """Return a layer by its name.

    Raises:
        UsageError: the network has no such layer; the message names the nearest ones.
    """
    layers = dict(network.named_modules())
    if name and name in layers:
        return layers[name]
    raise UsageError(f"layer: got {name!r}, which the network does not have; {_nearest(name, layer_names(network))}")


def _nearest(name: str, known: tuple[str, ...]) -> str:
    """Return in words which names are near: first those that hold it, then those spelt alike."""
    if not known:
        return "it has no layers at all"
    within = sorted((one for one in known if name and name in one), key=len)
    alike = difflib.get_close_matches(name, known, n=MOST_NAMED, cutoff=0.5)
    found = list(dict.fromkeys([*within, *alike]))[:MOST_NAMED]
    if found:
        return "nearest: " + ", ".join(found)
    top = [one for one in known if "." not in one]
    return f"its outermost are: {', '.join(top[:12])}"
